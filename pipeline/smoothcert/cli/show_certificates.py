"""What certification shows at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from smoothcert.cli import exit_codes
from smoothcert.cli.options import shown
from smoothcert.errors import TrackingError

if TYPE_CHECKING:
    from smoothcert.runtime.driver import Driver, PhaseReport
    from smoothcert.summary.summary import Summary


def show_certificates(driver: Driver, report: PhaseReport, console: Console) -> int:
    """Print the summary, keep it, track the run; returns the exit code that the rows deserve."""
    from smoothcert.summary.summary import summarise

    run = driver.run
    summary = summarise(run.url)
    run.write_document("summary.json", summary.to_json().encode())
    _print_summary(Console(), summary, report)
    if driver.job.tracking.enabled and not report.stopped:
        _track(driver, summary, console)
    if report.stopped or report.missing:
        return 0
    budget = driver.job.output.quarantine_budget
    if summary.quarantined.count > budget * report.pairs:
        console.print(
            f"[bold red]{summary.quarantined.count:,} of {report.pairs:,} pairs are quarantined, more than "
            f"output.quarantine_budget={budget:g} allows[/]",
            soft_wrap=True,
        )
        console.print(
            f'  why: smoothcert query {shown(run.url)} "SELECT error_class, any_value(error_message), count(*) '
            'FROM quarantine GROUP BY 1"',
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
        return exit_codes.OVER_QUARANTINE_BUDGET
    _print_next(Console(), shown(run.url), classes=driver.job.zero_shot is not None)
    return 0


def _print_summary(console: Console, summary: Summary, report: PhaseReport) -> None:
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
