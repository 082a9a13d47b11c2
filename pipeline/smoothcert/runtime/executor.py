"""The contract of executors, and the one that needs nothing but this process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Protocol

from smoothcert.datasets import UnitSpec
from smoothcert.errors import EncoderError, ExecutorError, PairError, StoreError
from smoothcert.runtime.progress import Progress
from smoothcert.runtime.results import UnitResult
from smoothcert.runtime.session import Session

STORE_FAILURES = 10
"""Attempts in a row that may fail because of the store before a run gives up: a full disk empties no queue."""


@dataclass
class Monitor:
    """What an executor tells while it runs, and how it is told to stop.

    Attributes:
        on_result: called for every unit that is done, in the driver's thread.
        on_progress: called about once a second with the draws and pairs of units in flight or done.
        stop: set it to end gracefully: no new unit starts, those in flight may finish.
    """

    on_result: Callable[[UnitResult], None]
    on_progress: Callable[[Progress], None] = lambda progress: None
    stop: threading.Event = field(default_factory=threading.Event)


@dataclass
class ExecutorReport:
    """How it went.

    Attributes:
        failed: units that were given up, with the reason; their pairs have no rows.
        stopped: the run ended because it was told to.
        losses: workers lost on the way.
    """

    failed: dict[str, BaseException] = field(default_factory=dict)
    stopped: bool = False
    losses: int = 0

    def and_then(self, later: ExecutorReport) -> ExecutorReport:
        """This report and that of another round of the same session."""
        return ExecutorReport(
            self.failed | later.failed, self.stopped or later.stopped, self.losses + later.losses
        )


class Executor(Protocol):
    """Runs units. Whatever happens, a unit is committed once or named in the report."""

    def run(self, units: Iterable[UnitSpec], monitor: Monitor) -> ExecutorReport:
        """Run all units.

        Raises:
            EncoderError: the encoder cannot work at all.
            RunDirectoryError: no worker draws from the noise generator that the run was begun with.
            StoreError: the store refused ``STORE_FAILURES`` attempts in a row.
            ExecutorError: workers or the cluster failed beyond the budget.
        """


class DriverDuties(Protocol):
    """What only the driver does for the store."""

    def admit(self, noise: str) -> None:
        """Settle the noise generator of the run, before any worker draws.

        Raises:
            RunDirectoryError: the run was begun with another one.
        """

    def commit(self, result: UnitResult) -> None:
        """Commit a unit that its worker could not commit itself."""

    def split(self, unit: UnitSpec, parts: tuple[UnitSpec, ...]) -> bool:
        """Put smaller units in the place of one that costs workers, or is too large for what is left.

        Returns:
            False if the unit was committed (or split otherwise) in the meantime: then the parts must not run.
        """

    def convict(self, unit: UnitSpec, error: PairError) -> UnitResult:
        """Commit the quarantined row of a pair that kills or hangs workers."""


class LocalExecutor:
    """Runs units in this process, on this process's device.

    Args:
        open_session: makes the worker session.
        commit: commits a unit that the session may not commit itself, on stores with a single committer.
        admit: raises where units of this run may not be drawn from a session's noise generator.
        in_flight: units submitted at once, so that the device never waits for the next unit.
        attempts: tries of a unit that fails with an error of its own.
        grace_s: how long a stop waits for units in flight.
    """

    def __init__(
        self,
        open_session: Callable[[], Session],
        commit: Callable[[UnitResult], None],
        *,
        admit: Callable[[str], None] = lambda noise: None,
        in_flight: int = 2,
        attempts: int = 3,
        grace_s: float = 20.0,
    ) -> None:
        self._open_session = open_session
        self._commit = commit
        self._admit = admit
        self._in_flight = in_flight
        self._attempts = attempts
        self._grace_s = grace_s
        self._store_failures = 0

    def run(self, units: Iterable[UnitSpec], monitor: Monitor) -> ExecutorReport:
        """See ``Executor.run``."""
        report = ExecutorReport()
        waiting = iter(units)
        again: deque[UnitSpec] = deque()
        tries: dict[str, int] = {}
        session = self._open_session()
        running: dict[Future[UnitResult], UnitSpec] = {}
        try:
            self._admit(session.noise)
            while not monitor.stop.is_set():
                while len(running) < self._in_flight:
                    unit = again.popleft() if again else next(waiting, None)
                    if unit is None:
                        break
                    running[session.submit(unit)] = unit
                if not running:
                    break
                self._collect(running, again, tries, monitor, report, timeout=1.0)
                monitor.on_progress(session.progress())
            else:
                report.stopped = True
                wait(running, timeout=self._grace_s)
                self._collect(
                    {f: u for f, u in running.items() if f.done()}, again, tries, monitor, report, 0
                )
        except BaseException:
            session.abandon()
            raise
        if report.stopped:
            session.abandon()
        else:
            session.close()
        monitor.on_progress(session.progress())
        return report

    def _collect(
        self,
        running: dict[Future[UnitResult], UnitSpec],
        again: deque[UnitSpec],
        tries: dict[str, int],
        monitor: Monitor,
        report: ExecutorReport,
        timeout: float,
    ) -> None:
        done, _ = wait(running, timeout=timeout, return_when=FIRST_COMPLETED)
        for future in done:
            unit = running.pop(future)
            error = future.exception()
            self._store_failures = self._store_failures + 1 if isinstance(error, StoreError) else 0
            if error is None:
                result = future.result()
                if not result.done:
                    self._commit(result)
                monitor.on_result(result)
                continue
            if self._store_failures >= STORE_FAILURES:
                raise error
            if isinstance(error, (EncoderError, ExecutorError)) or not isinstance(error, Exception):
                raise error
            tries[unit.unit_id] = tries.get(unit.unit_id, 0) + 1
            if tries[unit.unit_id] < self._attempts:
                again.append(unit)
            else:
                report.failed[unit.unit_id] = error
