"""What workers and drivers say while they work: one JSON-lines file each under ``<run>/workers/``.

Telemetry, not results: a file that cannot be written is logged and written later. Files are small, so they are
rewritten whole, which works on object stores too: the last errors, the last starts and commits, and the newest sign
of life, so that no number of heartbeats costs an error. A thread of its own writes: who says something never waits
for the store, and a store that is away is not taken for a worker that hangs.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smoothcert.errors import StoreError
from smoothcert.redaction import redact
from smoothcert.storage import Storage
from smoothcert.store.run_directory import WORKERS

log = logging.getLogger(__name__)

DRIVER = "driver:"
"""What the name of a driver begins with, before host and process."""
BEAT = "progress"
"""The event that is only a sign of life."""
_TROUBLE = ("error", "warning")
_KEPT_TROUBLES = 100
_KEPT_LINES = 200
_EVERY_S = 5.0
_SILENT_S = 60.0
"""A worker that said nothing for so long does not count as alive."""


class EventLog:
    """Writes one worker's events.

    Args:
        storage: the run directory.
        worker: host and process.
        every_s: seconds between two writings, unless one is urgent.
    """

    def __init__(self, storage: Storage, worker: str, *, every_s: float = _EVERY_S) -> None:
        self._storage = storage
        self._worker = worker
        self._every_s = every_s
        self._file = f"{WORKERS}/{worker.replace(':', '-').replace('/', '-')}-{uuid.uuid4().hex[:6]}.jsonl"
        self._count = 0
        self._troubles: deque[tuple[int, str]] = deque(maxlen=_KEPT_TROUBLES)
        self._lines: deque[tuple[int, str]] = deque(maxlen=_KEPT_LINES)
        self._beat: list[tuple[int, str]] = []
        self._changed = threading.Condition()
        self._new = self._urgent = self._closing = False
        self._written = -every_s
        self._thread: threading.Thread | None = None

    def say(self, event: str, *, now: bool = False, **fields: object) -> None:
        """Note an event and return at once; it is written as soon as can be with ``now``, else every few seconds."""
        line = json.dumps(redact({"time": time.time(), "worker": self._worker, "event": event, **fields}))
        with self._changed:
            if self._closing:
                return
            self._count += 1
            if event == BEAT:
                self._beat = [(self._count, line)]
            else:
                (self._troubles if event in _TROUBLE else self._lines).append((self._count, line))
            self._new = True
            self._urgent = self._urgent or now
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_on, name="events", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what was said, for at most so long; nothing more is taken."""
        with self._changed:
            self._closing = True
            thread = self._thread
            self._changed.notify_all()
        if thread is not None:
            thread.join(timeout_s)

    def _write_on(self) -> None:
        failed = False
        while (data := self._next_text()) is not None:
            try:
                self._storage.replace(self._file, data)
                failed = False
            except StoreError as exc:
                if not failed:
                    log.warning("cannot write the event log %s: %s", self._file, exc)
                failed = True
                with self._changed:
                    self._new = True  # written with what is said next, or with this in a while
                    if self._closing:
                        return

    def _next_text(self) -> bytes | None:
        """The text to write, once it is time; ``None`` at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._new or self._closing)
            if not self._new:
                return None
            self._changed.wait_for(
                lambda: self._urgent or self._closing,
                timeout=max(0.0, self._written + self._every_s - time.monotonic()),
            )
            self._new = self._urgent = False
            self._written = time.monotonic()
            lines = sorted([*self._troubles, *self._lines, *self._beat])
        return ("\n".join(line for _, line in lines) + "\n").encode()


@dataclass(frozen=True)
class WorkerState:
    """What a worker, or a driver, said last.

    Attributes:
        worker: host and process; of drivers with ``DRIVER`` before it.
        said_at: when, in seconds since 1970.
        alive: whether it neither ended nor fell silent.
        ended: whether it said that it ended.
        units: in flight.
        draws, units_done: in its life.
        last_trouble: its last error or warning, and when that was.
        last_trouble_kind: ``error`` or ``warning``; empty without one.
    """

    worker: str
    said_at: float
    alive: bool
    ended: bool
    units: tuple[str, ...]
    draws: int
    units_done: int
    last_trouble: str | None
    last_trouble_at: float
    last_trouble_kind: str

    @property
    def drives(self) -> bool:
        """Whether it is a driver."""
        return self.worker.startswith(DRIVER)

    def as_mapping(self) -> Mapping[str, Any]:
        """For JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def describe(self) -> str:
        """For people."""
        state = "working" if self.alive else "ended" if self.ended else "not responding"
        return f"{self.worker}  {state}, {self.units_done:,} units done, {len(self.units)} in flight"


def read_workers(storage: Storage, *, now: float) -> tuple[WorkerState, ...]:
    """The last state of every worker, and of every driver, that wrote into the run."""
    files = [f"{WORKERS}/{name}" for name in storage.names(WORKERS) if name.endswith(".jsonl")]
    states = [_state(data, now) for _, data in storage.read_many(files)]
    return tuple(sorted((s for s in states if s is not None), key=lambda s: s.worker))


def _state(data: bytes, now: float) -> WorkerState | None:
    lines = [json.loads(line) for line in data.decode(errors="replace").splitlines() if line.strip()]
    if not lines:
        return None
    last = lines[-1]
    troubles = [line for line in lines if line["event"] in _TROUBLE]
    return WorkerState(
        worker=last["worker"],
        said_at=last["time"],
        ended=last["event"] == "end",
        alive=last["event"] != "end" and now - last["time"] < _SILENT_S,
        units=tuple(last.get("units", ())) if last["event"] != "end" else (),
        draws=last.get("draws", 0),
        units_done=last.get("units_done", 0),
        last_trouble=troubles[-1]["message"] if troubles else None,
        last_trouble_at=troubles[-1]["time"] if troubles else 0.0,
        last_trouble_kind=troubles[-1]["event"] if troubles else "",
    )
