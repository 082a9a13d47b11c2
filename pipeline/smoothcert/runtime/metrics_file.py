"""A run's numbers as a Prometheus text file, for runs that no endpoint shows: ``metrics.prom`` in the run directory.

The textfile collector of the node exporter reads it where ``output.metrics`` names a file in the collector's folder.
Each writing replaces the whole file. It stays after the end, with the last numbers and when they were taken.
"""

from __future__ import annotations

import threading
import time
from pathlib import PurePosixPath

from smoothcert.runtime.metrics import INSTRUMENTS, Instrument, Labels, prometheus_text
from smoothcert.runtime.progress import Progress, Rates
from smoothcert.storage import Storage
from smoothcert.store.rewritten import RewrittenFile

METRICS_FILE = "metrics.prom"
_EVERY_S = 15.0

PLANNED = Instrument("smoothcert_pairs_planned", "gauge", "Pairs of the input.", lambda p, r: None)
UPDATED = Instrument(
    "smoothcert_updated_timestamp_seconds",
    "gauge",
    "When this was written, in seconds since 1970.",
    lambda p, r: None,
)


class MetricsFile:
    """Keeps the file up to date; it never waits for the store.

    Args:
        run: the run directory.
        path: where else the file goes, a path or URL; None: into the run directory.
        labels: which run and phase it is.
        planned: pairs of the input.
        every_s: seconds between two writings.
    """

    def __init__(
        self, run: Storage, path: str | None, labels: Labels, planned: int, *, every_s: float = _EVERY_S
    ) -> None:
        self._labels = labels
        self._planned = planned
        self._lock = threading.Lock()
        self._now = (Progress(0, 0, 0), Rates())
        storage, name = (run, METRICS_FILE) if path is None else _place(path)
        self._file = RewrittenFile(storage, name, self._text, every_s=every_s, what="the metrics file")

    def note(self, progress: Progress, rates: Rates) -> None:
        """Take over the newest numbers, of all workers together."""
        with self._lock:
            self._now = (progress, rates)
        self._file.note()

    def close(self) -> None:
        """Write the last numbers; nothing is in flight any more."""
        with self._lock:
            self._now = (self._now[0].ended(), Rates())
        self._file.note(now=True)
        self._file.close()

    def _text(self) -> bytes:
        with self._lock:
            progress, rates = self._now
        values = [(each, each.value(progress, rates)) for each in INSTRUMENTS]
        values += [(PLANNED, float(self._planned)), (UPDATED, time.time())]
        return prometheus_text(values, self._labels).encode()


def _place(path: str) -> tuple[Storage, str]:
    if "://" in path:
        folder, _, name = path.rpartition("/")
        return Storage(folder), name
    whole = PurePosixPath(Storage(path).root)
    return Storage(str(whole.parent)), whole.name
