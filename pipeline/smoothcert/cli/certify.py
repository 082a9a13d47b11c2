"""``smoothcert certify``: a job file in, certified rows, SQL and a tracked run out."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console

from smoothcert.cli.options import ExecutorKind, JobFile, Overrides, overrides, shown
from smoothcert.errors import TrackingError
from smoothcert.job import load_job

if TYPE_CHECKING:
    from collections.abc import Callable

    from smoothcert.runtime.driver import Driver, RunReport
    from smoothcert.runtime.executor import Monitor
    from smoothcert.runtime.summary import Summary

EXIT_MISSING_ROWS = 5
EXIT_OVER_QUARANTINE_BUDGET = 6


def certify(job_file: JobFile, set_: Overrides = None, executor: ExecutorKind = None) -> None:
    """Certify every pair of a job, then make its attacks, if it has any. Run the same command again to resume.

    Exit codes: 0 every pair has its row; 2 bad input; 3 the store failed; 5 pairs without a row, or workers
    failed; 6 more quarantined pairs than output.quarantine_budget; 130, 143 stopped by SIGINT, SIGTERM; 1 the audit
    of the attacks found something.
    """
    job = load_job(job_file, overrides(set_, executor))
    from smoothcert.runtime.driver import Driver

    if job.attacks:
        from smoothcert.cli.attack import certify_and_attack

        sys.exit(certify_and_attack(Driver(job)))
    sys.exit(run_to_end(Driver(job)))


def run_to_end(
    driver: Driver,
    work: Callable[[Monitor], RunReport] | None = None,
    on_report: Callable[[RunReport], None] = lambda report: None,
    stopped_by: StopSignals | None = None,
) -> int:
    """Run what is left of a driver's run, show it, and return the exit code. Catches SIGINT and SIGTERM.

    Args:
        driver: of the run.
        work: what to do instead of ``driver.certify``.
        on_report: told how the work went.
        stopped_by: what catches signals, where something else follows.
    """
    job = driver.job
    console = Console(stderr=True)
    stopped_by = stopped_by or StopSignals(console)

    from smoothcert.cli.data_report import print_data
    from smoothcert.cli.progress import ProgressLine
    from smoothcert.runtime.executor import Monitor
    from smoothcert.runtime.summary import summarise

    run = driver.run
    committed = run.commits.load().pairs
    state = f"resuming: {committed:,} of {run.info.pairs:,} pairs are done" if committed else "new run"
    console.print(
        f"{shown(run.url)}  ({state}; {run.info.units:,} units, encoder {driver.encoder.name} on "
        f"{driver.encoder.device.type}, executor {job.executor.kind})",
        highlight=False,
        soft_wrap=True,
    )
    print_data(console, driver.plan)
    draws_per_pair = job.certify.pilot_draws + job.certify.max_draws
    with ProgressLine(console, pairs=run.info.pairs, done=committed, draws_per_pair=draws_per_pair) as line:
        monitor = Monitor(
            on_result=lambda result: None,
            on_progress=lambda p: line.update(draws=p.draws, pairs=p.pairs, quarantined=p.quarantined),
            stop=stopped_by.event,
        )
        report = (work or driver.certify)(monitor)
    on_report(report)
    summary = summarise(run.url)
    run.write_document("summary.json", summary.to_json().encode())
    _print_summary(Console(), summary, report)
    if job.tracking.enabled and not report.stopped:
        _track(driver, summary, console)
    code = _exit_code(driver, summary, report, console, stopped_by)
    if code == 0:
        _print_next(Console(), shown(run.url), classes=job.zero_shot is not None)
    return code


class StopSignals:
    """First SIGINT or SIGTERM: finish gracefully. Second: leave at once."""

    def __init__(self, console: Console) -> None:
        self.event = threading.Event()
        self.signal: int | None = None
        self._console = console
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.event.is_set():
            self._console.print("leaving; what was committed is kept")
            raise SystemExit(128 + number)
        self.signal = number
        self.event.set()
        self._console.print("stopping: units in flight may finish; once more to leave at once")


def _print_summary(console: Console, summary: Summary, report: RunReport) -> None:
    from rich.table import Table

    console.print()
    rate = report.draws / report.seconds if report.seconds else 0.0
    console.print(
        f"{summary.ok:,} of {report.pairs:,} pairs certified, {summary.quarantined.count:,} quarantined, "
        f"{summary.draws + summary.pilot_draws:,} draws"
        + (f"; this session {report.seconds:,.0f} s, {rate:,.0f} draws/s" if report.draws else ""),
        highlight=False,
    )
    for error_class, count in summary.quarantine:
        console.print(f"  quarantined {error_class}: {count:,}", highlight=False)
    if summary.unknown_labels:
        console.print(
            f"[yellow]warning:[/] {summary.unknown_labels:,} pairs have a label that zero_shot.labels does not "
            "name; they are in no accuracy",
            highlight=False,
        )
    header, rows = summary.table()
    table = Table(title=f"Certified under every l2 attack up to a radius (sigma {summary.sigma:g})")
    for name in header:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for target in summary.targets:
        console.print(
            f"target {target.name}: certified {target.certified.count:,}, refuted {target.refuted.count:,}, "
            f"undecided {target.budget.count:,}",
            highlight=False,
        )
    console.print(
        f"each statement fails with probability at most alpha = {summary.alpha:g}: of these "
        f"{summary.ok:,} pairs at most {summary.expected_false_certificates:.2g} expected",
        highlight=False,
    )


def _print_next(console: Console, url: str, *, classes: bool) -> None:
    console.print("\nnext:")
    sql = "SELECT status, count(*), avg(smooth_norm_lcb), sum(draws) FROM certificates GROUP BY 1 ORDER BY 1"
    if classes:
        sql = (
            "SELECT predicted_label, count(*), avg(certified_radius) FROM certificates GROUP BY 1 ORDER BY 1"
        )
    console.print(f'  smoothcert query {url} "{sql}"', highlight=False, soft_wrap=True, markup=False)
    console.print(f"  smoothcert status {url}", highlight=False, soft_wrap=True, markup=False)


def _track(driver: Driver, summary: Summary, console: Console) -> None:
    from smoothcert.tracking import track_run

    try:
        tracked = track_run(driver.run.url, summary, driver.job)
    except TrackingError as exc:
        console.print(f"[yellow]not tracked:[/] {exc}", soft_wrap=True)
        console.print(f"  later: smoothcert track {shown(driver.run.url)}", highlight=False, soft_wrap=True)
    else:
        console.print(f"MLflow run {tracked.run_id} in {tracked.uri}", highlight=False, soft_wrap=True)


def _exit_code(
    driver: Driver, summary: Summary, report: RunReport, console: Console, stopped_by: StopSignals
) -> int:
    if report.stopped and stopped_by.signal is not None:
        console.print(f"stopped; {report.missing:,} pairs are left: run the same command again to resume")
        return 128 + stopped_by.signal
    if report.missing:
        console.print(f"[bold red]{report.missing:,} pairs have no row:[/]", soft_wrap=True)
        for unit, error in list(report.failed.items())[:5]:
            console.print(f"  {unit}: {error}", highlight=False, markup=False, soft_wrap=True)
        console.print("  remedy: mend the cause and run the same command again")
        return EXIT_MISSING_ROWS
    budget = driver.job.output.quarantine_budget
    if summary.quarantined.count > budget * report.pairs:
        console.print(
            f"[bold red]{summary.quarantined.count:,} of {report.pairs:,} pairs are quarantined, more than "
            f"output.quarantine_budget={budget:g} allows[/]",
            soft_wrap=True,
        )
        console.print(
            f'  why: smoothcert query {shown(driver.run.url)} "SELECT error_class, any_value(error_message), count(*) '
            'FROM quarantine GROUP BY 1"',
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
        return EXIT_OVER_QUARANTINE_BUDGET
    return 0
