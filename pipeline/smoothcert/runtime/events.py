"""What workers say while they work: one JSON-lines file a worker under ``<run>/workers/``.

Telemetry, not results: a line that cannot be written is logged and dropped. Files are small (one line a unit and a
heartbeat now and then), so they are rewritten whole, which works on object stores too.
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
from smoothcert.store import Storage

log = logging.getLogger(__name__)

WORKERS = "workers"
_KEPT_LINES = 200
_EVERY_S = 5.0
_SILENT_S = 60.0
"""A worker that said nothing for so long does not count as alive."""


class EventLog:
    """Writes one worker's events.

    Args:
        storage: the run directory.
        worker: host and process.
    """

    def __init__(self, storage: Storage, worker: str) -> None:
        self._storage = storage
        self._worker = worker
        self._file = f"{WORKERS}/{worker.replace(':', '-').replace('/', '-')}-{uuid.uuid4().hex[:6]}.jsonl"
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._written = 0.0
        self._lock = threading.Lock()

    def say(self, event: str, *, now: bool = False, **fields: object) -> None:
        """Note an event; written at once with ``now``, else at most every few seconds."""
        line = {"time": time.time(), "worker": self._worker, "event": event, **fields}
        with self._lock:
            self._lines.append(json.dumps(line))
            if not now and time.monotonic() - self._written < _EVERY_S:
                return
            self._written = time.monotonic()
            data = ("\n".join(self._lines) + "\n").encode()
            try:
                self._storage.replace(self._file, data)
            except StoreError as exc:
                log.warning("cannot write the event log %s: %s", self._file, exc)


@dataclass(frozen=True)
class WorkerState:
    """What a worker said last."""

    worker: str
    said_at: float
    alive: bool
    units: tuple[str, ...]
    draws: int
    units_done: int
    last_error: str | None
    last_error_at: float

    def as_mapping(self) -> Mapping[str, Any]:
        """For JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def describe(self) -> str:
        """For people."""
        state = "working" if self.alive else "gone"
        return f"{self.worker}  {state}, {self.units_done:,} units done, {len(self.units)} in flight"


def read_workers(storage: Storage, *, now: float) -> tuple[WorkerState, ...]:
    """The last state of every worker that wrote into the run."""
    files = [f"{WORKERS}/{name}" for name in storage.names(WORKERS) if name.endswith(".jsonl")]
    states = [_state(data, now) for _, data in storage.read_many(files)]
    return tuple(sorted((s for s in states if s is not None), key=lambda s: s.worker))


def _state(data: bytes, now: float) -> WorkerState | None:
    lines = [json.loads(line) for line in data.decode(errors="replace").splitlines() if line.strip()]
    if not lines:
        return None
    last = lines[-1]
    errors = [line for line in lines if line["event"] == "error"]
    return WorkerState(
        worker=last["worker"],
        said_at=last["time"],
        alive=last["event"] != "end" and now - last["time"] < _SILENT_S,
        units=tuple(last.get("units", ())) if last["event"] != "end" else (),
        draws=last.get("draws", 0),
        units_done=last.get("units_done", 0),
        last_error=errors[-1]["message"] if errors else None,
        last_error_at=errors[-1]["time"] if errors else 0.0,
    )
