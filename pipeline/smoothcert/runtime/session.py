"""One worker's whole life: units in, committed rows out. The same for every task, under every executor.

    submit(unit) -> read -> worker of its task (this device, never idle) -> rows -> part -> commit

Two threads beside those of the worker: one gives it assignments and takes what comes of their pairs, the other makes
rows and writes. Units of one task may overlap in its worker; before another task's worker goes to work, the one before
it is done with all it was given.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from smoothcert.datasets import Pair, Source, UnitSpec
from smoothcert.errors import ExecutorError, SmoothcertError
from smoothcert.runtime.progress import Progress, SessionLoad
from smoothcert.runtime.results import UnitResult, UnitWriter
from smoothcert.store import new_attempt
from smoothcert.store.events import BEAT, EventLog
from smoothcert.store.retry_unit import chosen_pairs
from smoothcert.store.units import task_of
from smoothcert.work.task import Assignment, Outcome, ShowsLoad, Task, UnitFailed, Worker

log = logging.getLogger(__name__)

_ROWS_AT_ONCE = 256
"""Pairs whose rows are made together: many share the cost of a step of numerics."""
_NUMBERS_AT_ONCE = 4_000_000
"""Numbers that may wait to become rows (32 MB): bounds what is held for long sequences of draws."""


@dataclass
class _OpenUnit:
    """One submission of a unit, up to its commit."""

    token: str
    unit: UnitSpec
    future: Future[UnitResult]
    worker: Worker | None = None
    started: float = field(default_factory=time.monotonic)
    waiting: list[Outcome] = field(default_factory=list)
    pairs: int = 0
    numbers: int = 0
    passes: int = 0
    rows: list[Any] = field(default_factory=list)


class Session:
    """Works on units on this process's device.

    Args:
        tasks: what units may be of, by task id.
        open_worker: puts a task to work here; called when its first unit comes.
        source: where pairs come from.
        writer: writes and commits a unit's rows.
        events: this worker's telemetry.
        noise: name of the generator that its draws come from.
    """

    def __init__(
        self,
        tasks: dict[str, Task],
        open_worker: Callable[[Task], Worker],
        source: Source,
        writer: UnitWriter,
        events: EventLog,
        noise: str,
    ) -> None:
        self.noise = noise
        self._tasks = tasks
        self._open_worker = open_worker
        self._source = source
        self._writer = writer
        self._events = events
        self._workers: dict[str, Worker] = {}
        self._units: queue.SimpleQueue[_OpenUnit | None] = queue.SimpleQueue()
        self._next: _OpenUnit | None = None
        self._outcomes: queue.SimpleQueue[Outcome | UnitFailed | None] = queue.SimpleQueue()
        self._open: dict[str, _OpenUnit] = {}
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._pairs = 0
        self._quarantined = 0
        self._units_done = 0
        self._opened = time.monotonic()
        self._threads = [
            threading.Thread(target=self._work, name="work", daemon=True),
            threading.Thread(target=self._finish, name="finish", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, unit: UnitSpec) -> Future[UnitResult]:
        """Queue a unit; the future ends with its committed result, or with what made it fail.

        Raises:
            ExecutorError: this session has stopped, or the job has no such task.
        """
        if task_of(unit.unit_id) not in self._tasks:
            raise ExecutorError(
                f"unit '{unit.unit_id}' is of a task that the job does not have",
                remedy="start all workers with the same job",
            )
        held = _OpenUnit(new_attempt(), unit, Future())
        with self._lock:
            if self._error is not None:
                raise ExecutorError(f"this worker has stopped: {self._error}") from self._error
            self._open[held.token] = held
        self._units.put(held)
        self._say("start", unit=unit.unit_id)
        return held.future

    @property
    def broken(self) -> BaseException | None:
        """What stopped this session; nothing that is submitted from then on is done."""
        return self._error

    def progress(self) -> Progress:
        """What was done so far, including units that are not committed yet; also a line in the event log."""
        load = self._load()
        self._say(
            BEAT,
            pairs=self._pairs,
            quarantined=self._quarantined,
            busy_s=round(load.busy_s, 3),
            pairs_waiting=load.pairs_waiting,
            outcomes_waiting=load.outcomes_waiting,
        )
        return Progress(self._draws_done, self._pairs, self._quarantined, self._units_done, load)

    def _load(self) -> SessionLoad:
        loads = [worker.load for worker in list(self._workers.values()) if isinstance(worker, ShowsLoad)]
        return SessionLoad(
            busy_s=sum(load.busy_s for load in loads),
            open_s=time.monotonic() - self._opened if loads else 0.0,
            units_in_flight=len(self._open),
            pairs_waiting=sum(load.waiting for load in loads),
            outcomes_waiting=self._outcomes.qsize()
            + sum(len(held.waiting) for held in list(self._open.values())),
            workers=1,
        )

    def close(self) -> None:
        """Finish what was submitted, then stop the threads."""
        self._units.put(None)
        for thread in self._threads:
            thread.join()
        self._end()

    def abandon(self) -> None:
        """Stop without finishing: what is not committed is dropped."""
        self._stop(ExecutorError("the worker was asked to stop"))
        self._units.put(None)
        self._end()

    def _end(self) -> None:
        for worker in list(self._workers.values()):
            worker.stop()
            for line in worker.close():
                log.warning("%s", line)
                self._say("note", message=line)
        self._say("end", now=True)
        self._events.close()

    @property
    def _draws_done(self) -> int:
        return sum(worker.draws_done for worker in list(self._workers.values()))

    def _say(self, event: str, *, now: bool = False, **fields: object) -> None:
        self._events.say(
            event,
            now=now,
            units=[held.unit.unit_id for held in list(self._open.values())],
            draws=self._draws_done,
            units_done=self._units_done,
            **fields,
        )

    # --- the thread that gives assignments -------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while (first := self._take()) is not None:
                worker = self._worker_of(first)
                if worker is None:
                    continue
                for outcome in worker.run(self._assignments(first, worker)):
                    self._outcomes.put(outcome)
        except BaseException as exc:
            self._stop(exc)
        finally:
            self._outcomes.put(None)

    def _take(self) -> _OpenUnit | None:
        """The next unit; waits for it. None at the end."""
        held, self._next = self._next, None
        if held is None and (held := self._units.get()) is None:
            self._units.put(None)  # the end, also for whoever asks next
        return held

    def _worker_of(self, held: _OpenUnit) -> Worker | None:
        """The worker of a unit's task; None, and the unit has failed, where it cannot be had."""
        task = self._tasks[task_of(held.unit.unit_id)]
        if task.task_id not in self._workers:
            try:
                self._workers[task.task_id] = self._open_worker(task)
            except Exception as exc:
                self._give_up(held, exc)
                return None
        return self._workers[task.task_id]

    def _assignments(self, first: _OpenUnit, worker: Worker) -> Iterator[Assignment]:
        """Units of one task as they come, until one of another task does."""
        held: _OpenUnit | None = first
        task_id = task_of(first.unit.unit_id)
        while held is not None and self._error is None:
            if task_of(held.unit.unit_id) != task_id:
                self._next = held
                return
            held.worker = worker
            yield Assignment(held.token, held.unit, self._read(held))
            held = self._units.get()
        if held is None:
            self._units.put(None)  # the end, also for whoever asks next

    def _read(self, held: _OpenUnit) -> Iterator[Pair]:
        try:
            yield from self._source.read(held.unit, chosen_pairs(held.unit))
        except SmoothcertError as exc:
            # the unit's file is gone or unreadable as a whole; the other units go on
            self._give_up(held, exc)

    # --- the thread that makes rows --------------------------------------------------------------------------

    def _finish(self) -> None:
        while (outcome := self._outcomes.get()) is not None:
            held = self._open.get(outcome.token)
            if held is None:
                continue  # what is left of a submission that was given up
            if isinstance(outcome, UnitFailed):
                self._give_up(held, outcome.error)
                continue
            held.waiting.append(outcome)
            held.numbers += outcome.size
            done = held.pairs + len(held.waiting) == len(held.unit)
            if not done and len(held.waiting) < _ROWS_AT_ONCE and held.numbers < _NUMBERS_AT_ONCE:
                continue
            try:
                self._advance(held, done)
            except BaseException as exc:
                self._give_up(held, exc)

    def _advance(self, held: _OpenUnit, done: bool) -> None:
        """Make rows of what waits; with the last pairs, write and commit the unit."""
        assert held.worker is not None
        held.rows.extend(held.worker.rows(held.unit.unit_id, held.waiting))
        held.pairs += len(held.waiting)
        held.passes += sum(outcome.passes for outcome in held.waiting)
        self._pairs += len(held.waiting)
        self._quarantined += sum(outcome.failed for outcome in held.waiting)
        held.waiting.clear()
        held.numbers = 0
        if not done:
            return
        task = self._tasks[task_of(held.unit.unit_id)]
        seconds = time.monotonic() - held.started
        result = self._writer.write(task, held.unit, held.rows, held.passes, seconds, attempt=held.token)
        with self._lock:
            if self._open.pop(held.token, None) is None:
                return  # stopped in the meantime; if the commit counted, the next driver finds it
        self._units_done += 1
        self._say("commit", unit=held.unit.unit_id, rows=len(held.rows))
        held.future.set_result(result)

    def _give_up(self, held: _OpenUnit, error: BaseException) -> None:
        with self._lock:
            if self._open.pop(held.token, None) is None:
                return
        log.error("unit %s failed: %s", held.unit.unit_id, error)
        self._say("error", unit=held.unit.unit_id, message=f"{type(error).__name__}: {error}")
        held.future.set_exception(error)

    def _stop(self, error: BaseException) -> None:
        with self._lock:
            self._error = error
            stopped, self._open = list(self._open.values()), {}
        for held in stopped:
            held.future.set_exception(error)
