"""What certification shows at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoothcert.cli import exit_codes
from smoothcert.cli.keeping import track, write_summary
from smoothcert.cli.options import typed_url
from smoothcert.cli.tables import print_table
from smoothcert.cli.terminal import Terminal
from smoothcert.summary.rounding import at_most

if TYPE_CHECKING:
    from smoothcert.runtime.driver import Driver, PhaseReport
    from smoothcert.summary.summary import Summary


def show_certificates(driver: Driver, report: PhaseReport, terminal: Terminal) -> int:
    """Print the summary, keep it, track the run; returns the exit code that the rows deserve."""
    run = driver.run
    summary = write_summary(driver)
    _print_summary(Terminal(), summary, report, driver.encoder.notes)
    track(driver, summary, report, terminal, last=len(driver.phases) == 1)
    if report.stopped or report.missing:
        return 0
    budget = driver.job.output.quarantine_budget
    if summary.quarantined.count > budget * report.pairs:
        terminal.say(
            (
                f"{summary.quarantined.count:,} of {report.pairs:,} pairs are quarantined, more than "
                f"output.quarantine_budget={budget:g} allows",
                "bold red",
            ),
        )
        terminal.say(
            f'  why: smoothcert query {typed_url(run.url)} "SELECT error_class, any_value(error_message), count(*) '
            'FROM quarantine GROUP BY 1"',
        )
        return exit_codes.OVER_QUARANTINE_BUDGET
    _print_next(Terminal(), typed_url(run.url), classes=driver.job.zero_shot is not None)
    return 0


def _print_summary(terminal: Terminal, summary: Summary, report: PhaseReport, notes: tuple[str, ...]) -> None:
    terminal.say()
    rate = report.draws / report.seconds if report.seconds else 0.0
    terminal.say(
        f"{summary.ok:,} of {report.pairs:,} pairs certified, {summary.quarantined.count:,} quarantined, "
        f"{summary.draws:,} draws ({summary.pilot_draws:,} of them pilots)"
        + (f"; this session took {report.seconds:,.0f} s ({rate:,.0f} draws/s)" if report.draws else ""),
    )
    for error_class, count in summary.quarantine:
        terminal.say(f"  quarantined {error_class}: {count:,}")
    if summary.unknown_labels:
        terminal.say(
            ("warning: ", "yellow"),
            f"{summary.unknown_labels:,} pairs have a label that zero_shot.labels does not "
            "name; they are in no accuracy",
        )
    for note in notes:
        terminal.say(("warning: ", "yellow"), note)
    header, rows = summary.table()
    title = f"Certified against every l2 attack up to the radius (sigma {summary.sigma:g})"
    print_table(terminal, title, header, rows)
    for target in summary.targets:
        terminal.say(
            f"target {target.name}: certified {target.certified.count:,}, refuted {target.refuted.count:,}, "
            f"undecided {target.budget.count:,}",
        )
    if summary.targets:
        terminal.say(_WHY_TARGETS)
    terminal.say(
        f"Each certificate is wrong with probability at most {summary.alpha:g}; expect at most "
        f"{at_most(summary.expected_false_certificates)} wrong among these {summary.ok:,} pairs.",
    )


_WHY_TARGETS = (
    "A target is one statement, tested after every draw at the whole alpha; a column holds at every radius at once, "
    "its bounds share alpha and look more seldom. So a target may certify more pairs than the column at its radius, or "
    "fewer where drawing stopped undecided."
)


def _print_next(terminal: Terminal, url: str, *, classes: bool) -> None:
    terminal.say()
    terminal.say("next:")
    sql = (
        "SELECT status, count(*), avg(smooth_norm_lcb), sum(pilot_draws + draws) FROM certificates GROUP BY 1 "
        "ORDER BY 1"
    )
    if classes:
        sql = (
            "SELECT predicted_label, count(*), avg(certified_radius) FROM certificates GROUP BY 1 ORDER BY 1"
        )
    terminal.say(f'  smoothcert query {url} "{sql}"')
    terminal.say(f"  smoothcert status {url}")
