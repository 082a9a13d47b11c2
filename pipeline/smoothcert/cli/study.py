"""``smoothcert study``: every combination of what a study file varies, and the leaderboard of them all."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from smoothcert.cli import exit_codes
from smoothcert.cli.options import ExecutorKind, JobFile, Overrides, overrides, shorten_url
from smoothcert.cli.running import StopSignals, run_phases
from smoothcert.cli.study_tracking import StudyTracking
from smoothcert.cli.terminal import Terminal
from smoothcert.cli.train import open_training, run_training
from smoothcert.errors import SmoothcertError
from smoothcert.job import load_study

if TYPE_CHECKING:
    from collections.abc import Sequence

    from smoothcert.job import Combination, Job
    from smoothcert.runtime.driver import Driver, PhaseReport
    from smoothcert.sql import Query
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
    for number, job in enumerate(jobs):
        if stopped_by.signal is not None:
            return 128 + stopped_by.signal
        try:
            training = open_training(job)
            if not training.finished and (code := run_training(training, stopped_by)) != 0:
                return code
        except SmoothcertError as exc:
            raise type(exc)(f"study.train.{number}: {exc.message}", remedy=exc.remedy) from exc
    return 0


def run_study(driver: StudyDriver, stopped_by: StopSignals) -> int:
    """Run a checked study, show it, and return the exit code."""
    terminal = stopped_by.terminal
    count = len(driver.study.combinations)
    tracking = StudyTracking(driver, terminal)
    numbers = {each.label: number for number, each in enumerate(driver.study.combinations, start=1)}
    complete = [run.label for run in driver.record.runs if run.state == "complete"]
    if complete:
        terminal.say(f"{len(complete)} of {count} runs are complete already")

    def perform(run: Driver, combination: Combination) -> int:
        terminal.say((f"[{numbers[combination.label]}/{count}] ", "bold"), combination.label)
        shown = _Shown(combination, len(run.phases), terminal, tracking)
        name = combination.label if driver.several else ""
        return run_phases(run, stopped_by, show=shown.show, name=name)

    def tell(combination: Combination, error: SmoothcertError) -> None:
        terminal.say((f"{combination.label} failed: ", "bold red"), str(error))

    try:
        if len(complete) < count:
            tracking.begin()
        report = driver.run(perform, lambda: stopped_by.signal is not None, tell, tracking.look)
        return _finish(driver, report, stopped_by, tracking)
    except BaseException as exc:
        tracking.cut_short(exc)
        raise


class _Shown:
    """What one run of a study shows: what is wrong with its rows; the figures are in the leaderboard."""

    def __init__(
        self, combination: Combination, phases: int, terminal: Terminal, tracking: StudyTracking
    ) -> None:
        self._label = combination.label
        self._left = phases
        self._terminal = terminal
        self._tracking = tracking

    def show(self, driver: Driver, phase: Phase, report: PhaseReport, terminal: Terminal) -> int:
        """After the last phase keep figures and audit; where one was cut short, the figures.

        Returns:
            The exit code that the rows deserve.
        """
        from smoothcert.sql import Query

        self._left -= 1
        whole = not (report.stopped or report.missing)
        if whole and self._left:
            return 0  # what the last phase shows is about all of them
        with Query(
            [driver.run], many=True
        ) as query:  # one for all that is counted: opening it takes the longest
            return self._keep(driver, query, whole=whole)

    def _keep(self, driver: Driver, query: Query, *, whole: bool) -> int:
        """Keep the figures, and of a whole run the audit; the exit code that the rows deserve."""
        from smoothcert.audit.kept import keep_audit, kept_audit
        from smoothcert.summary.summary import keep_summary

        summary = keep_summary(driver.run, query)
        if not whole:
            return 0
        budget, code = driver.job.output.quarantine_budget, 0
        shares = {"certificates": (summary.quarantined.count, summary.pairs)}
        shares |= {name: (table.quarantined, table.rows) for name, table in summary.tables.items()}
        for name, (bad, rows) in shares.items():
            if bad > budget * rows:
                self._terminal.say(
                    (
                        f"{self._label}: {bad:,} of {rows:,} rows of {name} are quarantined, more than ",
                        "bold red",
                    ),
                    f"output.quarantine_budget={budget:g} allows",
                )
                code = exit_codes.OVER_QUARANTINE_BUDGET
        result = kept_audit(driver.run) or keep_audit(driver.run, query)
        if not result.sound:
            for line in result.lines():
                self._terminal.say(line)
            code = exit_codes.NOT_SOUND
        self._tracking.keep_run(driver.run, driver.job, self._label, summary, query)
        return code


def _finish(
    driver: StudyDriver, report: StudyReport, stopped_by: StopSignals, tracking: StudyTracking
) -> int:
    from smoothcert.cli.show_leaderboard import print_leaderboard

    terminal = stopped_by.terminal
    out = Terminal()
    if report.board is not None:
        print_leaderboard(out, report.board)
    for run in report.record.runs:
        if run.state != "complete":
            terminal.say((f"{run.label}: ", "bold"), run.state)
    out.say(f"every figure: {shorten_url(driver.url)}/leaderboard.csv")
    tracking.keep_study(report)
    if stopped_by.signal is not None:
        terminal.say("stopped; run the same command again to resume")
        return 128 + stopped_by.signal
    return report.code
