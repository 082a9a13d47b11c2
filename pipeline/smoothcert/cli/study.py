"""``smoothcert study``: every combination of what a study file varies, and the leaderboard of them all."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from smoothcert.cli import exit_codes
from smoothcert.cli.keeping import pages, write_summary
from smoothcert.cli.options import ExecutorKind, JobFile, Overrides, overrides, shorten_url
from smoothcert.cli.running import Show, StopSignals, run_phases
from smoothcert.cli.terminal import Terminal
from smoothcert.cli.train import run_training
from smoothcert.errors import SmoothcertError, TrackingError
from smoothcert.job import load_study

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smoothcert.job import Combination, Job
    from smoothcert.runtime.driver import Driver, PhaseReport
    from smoothcert.studies.driving import StudyDriver, StudyReport
    from smoothcert.work.tasks import Phase


def study(job_file: JobFile, set_: Overrides = None, executor: ExecutorKind = None) -> None:
    """Train what a study file wants trained, certify, attack and audit every combination, and rank them.

    Run it again to resume.

    Every combination is a run like any other, of smoothcert certify and attack: nothing that is done is done again. All
    combinations are checked before the first one begins. Leaderboard and list of runs are in RUNS/NAME.study.

    Exit codes: the worst of its runs, as of certify.
    """
    found = load_study(job_file, overrides(set_, executor))
    from smoothcert.studies.driving import StudyDriver

    stopped_by = StopSignals(Terminal(stderr=True), "the step or units in progress")
    if (code := run_trainings(found.trainings, stopped_by)) != 0:
        sys.exit(code)
    driver = StudyDriver(found)
    driver.check()
    sys.exit(run_study(driver, stopped_by))


def run_trainings(jobs: Sequence[Job], stopped_by: StopSignals) -> int:
    """Run the trainings of a study that are not done, one after the other, and return the exit code.

    Raises:
        SmoothcertError: one cannot be done, or failed; what was trained before it stays.
    """
    from smoothcert.training.train import Training

    for number, job in enumerate(jobs):
        if stopped_by.signal is not None:
            return 128 + stopped_by.signal
        try:
            training = Training(job)
            if not training.finished and (code := run_training(training, stopped_by)) != 0:
                return code
        except SmoothcertError as exc:
            raise type(exc)(f"study.train.{number}: {exc.message}", remedy=exc.remedy) from exc
    return 0


def run_study(driver: StudyDriver, stopped_by: StopSignals) -> int:
    """Run a checked study, show it, and return the exit code."""
    terminal = stopped_by.terminal
    count = len(driver.study.combinations)
    display = _Display(terminal)
    begun = iter(range(1, count + 1))

    def perform(run: Driver, combination: Combination) -> int:
        terminal.say((f"[{next(begun)}/{count}] ", "bold"), combination.label)
        return run_phases(run, stopped_by, show=display.of(combination, len(run.phases)))

    def tell(combination: Combination, error: SmoothcertError) -> None:
        terminal.say(("failed: ", "bold red"), str(error))

    report = driver.run(perform, lambda: stopped_by.signal is not None, tell)
    return _finish(driver, report, stopped_by, display)


class _Display:
    """What the runs of a study show: one line a phase; the figures are in the leaderboard.

    Attributes:
        untracked: why MLflow was not told of a run; nothing more is sent then.
    """

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self.untracked: TrackingError | None = None

    def of(self, combination: Combination, phases: int) -> Show:
        """How one run's phases are shown."""
        ended: list[str] = []

        def show(driver: Driver, phase: Phase, report: PhaseReport, terminal: Terminal) -> int:
            ended.append(phase.name)
            return self._show(driver, report, combination.label, last=len(ended) == phases)

        return show

    def _show(self, driver: Driver, report: PhaseReport, label: str, *, last: bool) -> int:
        from smoothcert.audit.kept import keep_audit, kept_audit

        summary = write_summary(driver)
        if report.stopped or report.missing:
            return 0
        budget, code = driver.job.output.quarantine_budget, 0
        shares = {"certificates": (summary.quarantined.count, summary.pairs)}
        shares |= {name: (table.quarantined, table.rows) for name, table in summary.tables.items()}
        for name, (bad, rows) in shares.items():
            if bad > budget * rows:
                self._terminal.say(
                    (f"  {bad:,} of {rows:,} rows of {name} are quarantined, more than ", "bold red"),
                    f"output.quarantine_budget={budget:g} allows",
                )
                code = exit_codes.OVER_QUARANTINE_BUDGET
        if not last:
            return code
        result = kept_audit(driver.run) or keep_audit(driver.run)
        if not result.sound:
            for line in result.lines():
                self._terminal.say(line)
            code = exit_codes.NOT_SOUND
        self._track(driver, summary, label)
        return code

    def _track(self, driver: Driver, summary: object, label: str) -> None:
        from smoothcert.summary.summary import Summary
        from smoothcert.tracking import track_run

        assert isinstance(summary, Summary)
        if not driver.job.tracking.enabled or self.untracked is not None:
            return
        try:
            documents = pages([driver.run], driver.job, self._terminal)
            track_run(driver.run.url, summary, driver.job, label=label, documents=documents)
        except TrackingError as exc:
            self.untracked = exc
            self._terminal.say(("not tracked: ", "yellow"), str(exc.message))


def _finish(driver: StudyDriver, report: StudyReport, stopped_by: StopSignals, display: _Display) -> int:
    from smoothcert.cli.show_leaderboard import print_leaderboard

    terminal = stopped_by.terminal
    out = Terminal()
    if report.board is not None:
        print_leaderboard(out, report.board)
    for run in report.record.runs:
        if run.state != "complete":
            terminal.say((f"{run.label}: ", "bold"), run.state)
    out.say(f"every figure: {shorten_url(driver.url)}/leaderboard.csv")
    _say_where(driver, report, terminal, display)
    if stopped_by.signal is not None:
        terminal.say("stopped; run the same command again to resume")
        return 128 + stopped_by.signal
    return report.code


def _say_where(driver: StudyDriver, report: StudyReport, terminal: Terminal, display: _Display) -> None:
    from smoothcert.studies.tracked import track

    job = driver.study.combinations[0].job
    if not job.tracking.enabled or report.board is None:
        return
    if display.untracked is None:
        try:
            runs = report.record.open_runs()
            documents = pages(list(runs.values()), job, terminal, names=list(runs)) if runs else {}
            tracked = track(driver.url, job, report.record, report.board, documents)
        except TrackingError as exc:
            display.untracked = exc
            terminal.say(("not tracked: ", "yellow"), exc.message)
        else:
            terminal.say(f"MLflow: {tracked.how_to_look}")
    if display.untracked is not None:
        terminal.say("  to log it later: run the same command again; what is done is not done again")
