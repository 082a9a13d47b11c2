"""What a phase shows at its end that has no display of its own: rows by task, and whether too many are quarantined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smoothcert.cli import exit_codes
from smoothcert.cli.options import typed_url
from smoothcert.cli.terminal import Terminal

if TYPE_CHECKING:
    from smoothcert.runtime.driver import Driver, PhaseReport
    from smoothcert.work.tasks import Phase


def show_rows(driver: Driver, phase: Phase, report: PhaseReport, terminal: Terminal) -> int:
    """Print how many rows each task has; returns the exit code that they deserve."""
    from smoothcert.store.units import task_of

    out, run, budget = Terminal(), driver.run, driver.job.output.quarantine_budget
    over = False
    for task in phase.tasks:
        rows = _rows(driver, task.table.name)
        mine = [row for row in rows if task_of(row["unit_id"]) == task.task_id]
        pairs, bad = (sum(row[name] for row in mine) for name in ("pairs", "quarantined"))
        out.say(f"{task.name}: rows of {pairs:,} pairs in table {task.table.name}, {bad:,} quarantined")
        if bad > budget * run.info.pairs:
            over = True
            terminal.say(
                (
                    f"{task.name}: {bad:,} of {run.info.pairs:,} pairs are quarantined, more than "
                    f"output.quarantine_budget={budget:g} allows",
                    "bold red",
                ),
            )
            terminal.say(
                f'  why: smoothcert query {typed_url(run.url)} "SELECT error_class, any_value(error_message), '
                f"count(*) FROM {task.table.name} WHERE status = 'quarantined' GROUP BY 1\"",
            )
    return exit_codes.OVER_QUARANTINE_BUDGET if over and not (report.stopped or report.missing) else 0


def _rows(driver: Driver, table: str) -> list[dict[str, Any]]:
    """Pairs of each unit of a table, and how many of them are quarantined."""
    from smoothcert.sql import Query

    with Query([driver.run]) as query:
        rows: list[dict[str, Any]] = query.rows(
            "SELECT unit_id, count(DISTINCT pair_id) AS pairs, count(DISTINCT pair_id) FILTER (status = 'quarantined') "
            f"AS quarantined FROM {table} GROUP BY unit_id"
        )
    return rows
