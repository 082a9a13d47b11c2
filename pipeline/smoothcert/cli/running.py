"""Running a job to its end: signals, the progress of each phase, and exit codes."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING

from smoothcert.cli import exit_codes
from smoothcert.cli.options import shorten_url
from smoothcert.cli.showing import show_phase
from smoothcert.cli.terminal import Terminal

if TYPE_CHECKING:
    from smoothcert.runtime.driver import Driver, PhaseReport
    from smoothcert.runtime.executor import Monitor
    from smoothcert.work.tasks import Phase

Show = Callable[["Driver", "Phase", "PhaseReport", Terminal], int]
_NOTHING: Mapping[str, tuple[str, ...]] = MappingProxyType({})


def run_job(driver: Driver, again: Mapping[str, tuple[str, ...]] = _NOTHING) -> int:
    """Run what is left of a job, show it, and return the exit code. Catches SIGINT and SIGTERM.

    Args:
        driver: of the job.
        again: pairs to be done again (``retry.choose``).
    """
    from smoothcert.cli.data_report import print_data

    driver.check()
    terminal = Terminal(stderr=True)
    print_data(terminal, driver.plan)
    return run_phases(driver, StopSignals(terminal), again)


def run_phases(
    driver: Driver,
    stopped_by: StopSignals,
    again: Mapping[str, tuple[str, ...]] = _NOTHING,
    show: Show = show_phase,
    name: str = "",
) -> int:
    """Run what is left of a checked job, and return the exit code.

    Args:
        driver: of the job.
        stopped_by: what catches signals.
        again: pairs to be done again.
        show: shows each phase at its end, and returns the exit code that its rows deserve.
        name: begins each line, where other runs go on beside this one.
    """
    terminal = stopped_by.terminal
    code = 0
    for phase in driver.phases:
        if stopped_by.signal is not None:
            terminal.say(f"stopped before the {phase.name}: run the same command again to resume")
            return 128 + stopped_by.signal
        ended = run_phase(
            driver,
            phase,
            lambda monitor, name=phase.name: driver.work(name, monitor, again),  # type: ignore[misc]
            stopped_by,
            show,
            name,
        )
        if ended not in (0, exit_codes.OVER_QUARANTINE_BUDGET):
            return ended
        code = ended or code
    return code


def run_phase(
    driver: Driver,
    phase: Phase,
    work: Callable[[Monitor], PhaseReport],
    stopped_by: StopSignals,
    show: Show = show_phase,
    name: str = "",
) -> int:
    """Run one phase, show it, and return the exit code.

    Args:
        driver: of the job.
        phase: what is run.
        work: what runs it.
        stopped_by: what catches signals.
        show: shows it at its end, and returns the exit code that its rows deserve.
        name: begins each line, where other runs go on beside this one.
    """
    from smoothcert.cli.progress import ProgressLine
    from smoothcert.runtime.executor import Monitor

    terminal = stopped_by.terminal
    begin = f"{name}: " if name else ""
    run, tasks = driver.run, phase.tasks
    pairs = run.info.pairs * len(tasks)
    done = pairs - sum(len(unit) for unit in driver.units_left(phase, run.commits.load()))
    terminal.say(
        f"{begin}{shorten_url(run.url)}  ({phase.name}: {_state(done, pairs)}; {run.info.units * len(tasks):,} units, "
        f"encoder {driver.encoder.name} on {driver.encoder.device.type}, executor {driver.job.executor.kind})",
    )
    expected = phase.draws_per_pair(driver.inputs)
    with ProgressLine(terminal, pairs=pairs, done=done, draws_per_pair=expected, name=name) as line:
        monitor = Monitor(on_result=lambda result: None, on_progress=line.update, stop=stopped_by.event)
        with stopped_by.quitting():
            report = work(monitor)
    for note in report.notes:
        terminal.say(begin + note)
    stopped = report.stopped and stopped_by.signal is not None
    code = show(driver, phase, report, terminal)
    if stopped:
        terminal.say(
            f"{begin}stopped with {report.missing:,} pairs to go; run the same command again to resume"
        )
        return 128 + (stopped_by.signal or 0)
    if report.missing:
        terminal.say((f"{begin}{report.missing:,} pairs have no row:", "bold red"))
        for unit, error in list(report.failed.items())[:5]:
            terminal.say(f"  {unit}: {error}")
        terminal.say("  remedy: fix the cause and run the same command again")
        return exit_codes.MISSING_ROWS
    return code


def _state(done: int, pairs: int) -> str:
    return f"resuming, {done:,} of {pairs:,} pairs are done" if done else "new"


class StopSignals:
    """First SIGINT or SIGTERM: finish gracefully. Second: leave at once.

    Args:
        terminal: where to say so.
        work: what is waited for after the first.
    """

    def __init__(self, terminal: Terminal, work: str = "units in progress") -> None:
        self.event = threading.Event()
        self.signal: int | None = None
        self.terminal = terminal
        self._work = work
        self._code: int | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    @contextlib.contextmanager
    def quitting(self) -> Iterator[None]:
        """Around work: the second signal leaves it with its own exit code, also where Ray puts a 1 in its place."""
        try:
            yield
        except SystemExit:
            if self._code is None:
                raise
            raise SystemExit(self._code) from None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.event.is_set():
            _say_unbuffered("quitting now; committed results are kept")
            self._code = 128 + number
            raise SystemExit(self._code)
        self.signal = number
        self.event.set()
        said = f"stopping: waiting for {self._work}; press Ctrl-C again to quit now"
        try:
            self.terminal.say(said)
        except RuntimeError:  # the signal came while a line was being written
            _say_unbuffered(said)


def _say_unbuffered(text: str) -> None:
    """A line on standard error, past Python's streams: these refuse to be written to inside a write of their own."""
    os.write(2, f"{text}\n".encode())
