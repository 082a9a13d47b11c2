"""What workers and drivers say while they work: one JSON-lines file each under ``<run>/workers/``.

Telemetry, not results. Files are small, so they are rewritten whole (rewritten.py): the last errors, the last starts
and commits, and the newest sign of life, so that no number of heartbeats costs an error.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smoothcert.redaction import redact
from smoothcert.storage import Storage
from smoothcert.store.rewritten import RewrittenFile
from smoothcert.store.run_directory import WORKERS

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
_STILL_SAID_S = 5.0
"""How much later than its loss a lost worker's last words may be dated; one that speaks later is not lost."""


class EventLog:
    """Writes one worker's events.

    Args:
        storage: the run directory.
        worker: host and process.
        every_s: seconds between two writings, unless one is urgent.
    """

    def __init__(self, storage: Storage, worker: str, *, every_s: float = _EVERY_S) -> None:
        self._worker = worker
        file = f"{WORKERS}/{_in_file_name(worker)}-{uuid.uuid4().hex[:6]}.jsonl"
        self._count = 0
        self._troubles: deque[tuple[int, str]] = deque(maxlen=_KEPT_TROUBLES)
        self._lines: deque[tuple[int, str]] = deque(maxlen=_KEPT_LINES)
        self._beat: list[tuple[int, str]] = []
        self._lock = threading.Lock()
        self._file = RewrittenFile(storage, file, self._text, every_s=every_s, what="the event log")

    def say(self, event: str, *, now: bool = False, **fields: object) -> None:
        """Note an event and return at once; it is written as soon as can be with ``now``, else every few seconds."""
        line = json.dumps(redact({"time": time.time(), "worker": self._worker, "event": event, **fields}))
        with self._lock:
            self._count += 1
            if event == BEAT:
                self._beat = [(self._count, line)]
            else:
                (self._troubles if event in _TROUBLE else self._lines).append((self._count, line))
        self._file.note(now=now)

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what was said, for at most so long; nothing more is taken."""
        self._file.close(timeout_s)

    def _text(self) -> bytes:
        with self._lock:
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
        ending: of a driver that ended, how: ``done``, ``stopped`` or ``failed``; empty where it did not say.
        lost: a driver saw this worker die or gave it up, and it said nothing since.
        draws_per_s, pairs_per_s: of a driver, lately; None while it does not know.
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
    ending: str = ""
    lost: bool = False
    draws_per_s: float | None = None
    pairs_per_s: float | None = None

    @property
    def drives(self) -> bool:
        """Whether it is a driver."""
        return self.worker.startswith(DRIVER)

    def as_mapping(self) -> Mapping[str, Any]:
        """For JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def describe(self) -> str:
        """For people."""
        gone = "lost" if self.lost else "not responding"
        state = "working" if self.alive else "ended" if self.ended else gone
        doing = f", {len(self.units)} in flight" if self.alive else ""
        return f"{self.worker}  {state}, {self.units_done:,} units done{doing}"


def _in_file_name(worker: str) -> str:
    return worker.replace(":", "-").replace("/", "-")


def read_workers(storage: Storage, *, now: float, drivers_only: bool = False) -> tuple[WorkerState, ...]:
    """The last state of every worker, and of every driver, that wrote into the run."""
    begins = _in_file_name(DRIVER) if drivers_only else ""
    names = storage.names(WORKERS)
    files = [f"{WORKERS}/{name}" for name in names if name.endswith(".jsonl") and name.startswith(begins)]
    logs = [lines for _, data in storage.read_many(files) if (lines := _lines(data))]
    lost = {line["lost"]: line["time"] for lines in logs for line in lines if "lost" in line}
    states = (_state(lines, now, lost) for lines in logs)
    return tuple(sorted(states, key=lambda state: state.worker))


def _lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.decode(errors="replace").splitlines() if line.strip()]


def _state(lines: list[dict[str, Any]], now: float, lost: Mapping[str, float]) -> WorkerState:
    last = lines[-1]
    troubles = [line for line in lines if line["event"] in _TROUBLE]
    beat: dict[str, Any] = next((line for line in reversed(lines) if line["event"] == BEAT), {})
    ended = last["event"] == "end"
    gone = not ended and last["time"] < lost.get(last["worker"], 0.0) + _STILL_SAID_S
    return WorkerState(
        worker=last["worker"],
        said_at=last["time"],
        ended=ended,
        alive=not ended and not gone and now - last["time"] < _SILENT_S,
        units=() if ended or gone else tuple(last.get("units", ())),
        draws=last.get("draws", beat.get("draws", 0)),
        units_done=last.get("units_done", 0),
        last_trouble=troubles[-1]["message"] if troubles else None,
        last_trouble_at=troubles[-1]["time"] if troubles else 0.0,
        last_trouble_kind=troubles[-1]["event"] if troubles else "",
        ending=last.get("ending", ""),
        lost=gone,
        draws_per_s=beat.get("draws_per_s"),
        pairs_per_s=beat.get("pairs_per_s"),
    )
