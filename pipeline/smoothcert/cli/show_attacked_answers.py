"""What attacks on answers show at their end: accuracy without and under attack, and success, by subject and budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoothcert.cli import exit_codes
from smoothcert.cli.options import typed_url
from smoothcert.cli.show_rows import show_rows
from smoothcert.cli.terminal import Terminal

if TYPE_CHECKING:
    from smoothcert.runtime.driver import Driver, PhaseReport


def show_attacked_answers(driver: Driver, report: PhaseReport, terminal: Terminal) -> int:
    """Print ACC and ASR; returns the exit code that the rows deserve."""
    from rich.table import Table

    from smoothcert.sql import Query
    from smoothcert.sql.literals import quote

    with Query([driver.run]) as query:
        rows = query.rows(
            "SELECT attack, norm, objective, budget, subject, questions, clean_acc, acc, asr, violations "
            f"FROM attacked_answer_accuracy WHERE run_id = {quote(driver.run.run_id)} ORDER BY ALL"
        )
    table = Table(
        title="Answers under attack: right before (clean), right then (ACC), attacks that succeed (ASR)"
    )
    for column in ("attack", "for", "budget", "subject", "questions", "clean", "ACC", "ASR"):
        table.add_column(column, justify="left" if column in ("attack", "for", "subject") else "right")
    for row in rows:
        shares = [_share(row[name]) for name in ("clean_acc", "acc", "asr")]
        budget = f"{row['norm']} {row['budget']:.3g}"
        table.add_row(row["attack"], row["objective"], budget, row["subject"], str(row["questions"]), *shares)
    if rows:
        Terminal().print(table)
    if beaten := sum(row["violations"] for row in rows):
        terminal.say(
            (f"{beaten:,} outcomes contradict a certified answer", "bold red"),
            f": smoothcert audit {typed_url(driver.run.url)}",
        )
    phase = next(each for each in driver.phases if each.name == "attacked answers")
    code = show_rows(driver, phase, report, terminal)
    return exit_codes.NOT_SOUND if beaten and not (report.stopped or report.missing) else code


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
