"""What attacks show at their end: success and gap, and the audit that holds them against the certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smoothcert.cli import exit_codes
from smoothcert.cli.options import shorten_url
from smoothcert.cli.terminal import Terminal

if TYPE_CHECKING:
    from smoothcert.job import Job
    from smoothcert.runtime.driver import Driver, PhaseReport
    from smoothcert.sql import Query


def show_attacks(driver: Driver, report: PhaseReport, terminal: Terminal) -> int:
    """Print what attacks achieved and audit the run; returns the exit code that the rows deserve."""
    from smoothcert.audit.audit import audit_run
    from smoothcert.sql import Query

    if report.stopped:
        return 0
    out = Terminal()
    with Query([driver.run]) as query:
        success = query.sql("SELECT * FROM attack_success").to_pylist()
        _print_rows(out, _success_title(success), _success_table(success))
        _print_rows(out, "Cosines under noise: certified, attacked and clean", query.sql(_GAP).to_pylist())
        quarantined = _quarantined(query, driver.job)
    result = audit_run(driver.run)
    driver.run.write_document("audit.json", result.to_json().encode())
    for text in result.lines():
        out.say(text)
    if report.missing:
        return 0
    over = _over_quarantine_budget(terminal, driver, quarantined)
    if not result.sound:
        return exit_codes.NOT_SOUND
    return exit_codes.OVER_QUARANTINE_BUDGET if over else 0


def _quarantined(query: Query, job: Job) -> list[tuple[str, str, int]]:
    """(attack, attack_id, pairs) for each attack of a job that has quarantined pairs, each pair counted once."""
    ids = ", ".join(f"'{section.attack_id}'" for section in job.attacks)
    rows = query.sql(
        "SELECT attack, attack_id, count(DISTINCT pair_id) AS pairs FROM attacks "
        f"WHERE status = 'quarantined' AND attack_id IN ({ids}) GROUP BY ALL ORDER BY ALL"
    ).to_pylist()
    return [(row["attack"], row["attack_id"], row["pairs"]) for row in rows]


def _over_quarantine_budget(terminal: Terminal, driver: Driver, found: list[tuple[str, str, int]]) -> bool:
    """Say where an attack has more quarantined pairs than the job allows; whether there is one."""
    pairs, budget = driver.run.info.pairs, driver.job.output.quarantine_budget
    over = [each for each in found if each[2] > budget * pairs]
    for attack, attack_id, count in over:
        terminal.say(
            (
                f"attack {attack} {attack_id}: {count:,} of {pairs:,} pairs ({count / pairs:.1%}) are "
                f"quarantined, more than output.quarantine_budget={budget:g} allows",
                "bold red",
            ),
        )
    if over:
        terminal.say(
            f'  why: smoothcert query {shorten_url(driver.run.url)} "SELECT attack, error_class, '
            "any_value(error_message), count(*) FROM attacks WHERE status = 'quarantined' GROUP BY 1, 2\"",
        )
        terminal.say("  to attack them again: smoothcert attack JOB --retry true")
    return bool(over)


_GAP = (
    "SELECT subject, reference, radius, pairs, certified_pairs AS certifiable, certified_cosine AS certified, "
    'attacked_cosine_of_certified AS attacked, attacked_cosine AS "attacked, all", clean_cosine AS clean '
    "FROM robustness_gap"
)


def _success_title(found: list[dict[str, Any]]) -> str:
    title = "Wrong under attack: share of all requested pairs"
    if any(row["missing"] for row in found):
        return f"{title}; pairs without an outcome yet count as not wrong"
    return title


def _success_table(found: list[dict[str, Any]]) -> list[dict[str, object]]:
    """One row per attack and budget, one column per subject."""
    rows: dict[tuple[object, ...], dict[str, object]] = {}
    for each in found:
        key = (_question(each), *(each[name] for name in ("norm", "budget", "attack", "attack_id")))
        row = rows.setdefault(
            key,
            {
                "objective": _question(each),
                "budget": f"{each['norm']} {each['budget']:g}",
                "attack": each["attack"],
                "pairs": each["pairs_asked"],
            },
        )
        rate = "-"
        if each["pairs"] > each["quarantined"]:
            rate = f"{each['success_rate']:.1%} [{each['rate_low']:.0%}, {each['rate_high']:.0%}]"
        aside = [f"{each[name]:,} {name}" for name in ("quarantined", "missing") if each[name]]
        row[each["subject"]] = f"{rate} ({', '.join(aside)})" if aside else rate
    subjects = dict.fromkeys(name for row in rows.values() for name in row)
    return [{name: row.get(name) for name in subjects} for row in rows.values()]


def _question(row: dict[str, object]) -> str:
    """The objective and what makes it one question: its reference, threshold or target."""
    parts = [f"{row['objective']}"]
    if row["reference"] in ("smoothed", "predicted"):
        parts.append(f"from {row['reference']}")
    if row["threshold"] is not None:
        parts.append(f"< {row['threshold']:g}")
    if row["target"]:
        parts.append(f"{row['target']}")
    return " ".join(parts)


def _print_rows(terminal: Terminal, title: str, rows: list[dict[str, object]]) -> None:
    from rich.table import Table

    if not rows:
        return
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*(_shown(value) for value in row.values()))
    terminal.print(table)


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
