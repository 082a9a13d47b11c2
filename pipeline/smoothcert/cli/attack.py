"""``smoothcert attack``: certify what is left of a job, attack every pair, and audit the one by the other."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from smoothcert.cli.certify import EXIT_MISSING_ROWS, EXIT_OVER_QUARANTINE_BUDGET, StopSignals, run_to_end
from smoothcert.cli.options import ExecutorKind, JobFile, Overrides, overrides
from smoothcert.job import load_job

if TYPE_CHECKING:
    from smoothcert.runtime.attack_driver import AttackDriver, AttackReport
    from smoothcert.runtime.audit import RunAudit
    from smoothcert.runtime.driver import Driver
    from smoothcert.runtime.retry import Chosen
    from smoothcert.store import Query

EXIT_NOT_SOUND = 1


def attack(
    job_file: JobFile,
    set_: Overrides = None,
    executor: ExecutorKind = None,
    retry: Annotated[
        str | None,
        typer.Option(
            "--retry",
            metavar="SQL",
            help="Also attack quarantined pairs again: a condition on the quarantined rows of the table attacks, e.g. "
            "\"error_class = 'WorkerKilledError'\". A chosen pair is attacked again on all subjects and at all budgets "
            "of that attack, and all these rows are replaced. The same command resumes.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Attack every pair of a job, after certifying what is not certified yet. Run it again to resume.

    The attacks are those of the job's section 'attacks'; rows go into the job's run directory, and the audit runs at
    the end. Exit codes: as certify; 1 the audit found something; 5 attack units without rows, or workers failed.
    """
    job = load_job(job_file, overrides(set_, executor))
    from smoothcert.runtime.driver import Driver

    sys.exit(certify_and_attack(Driver(job), retry))


def certify_and_attack(driver: Driver, retry: str | None = None) -> int:
    """Run a job that has attacks to its end, show everything, and return the exit code.

    Args:
        driver: of the job.
        retry: a condition on quarantined attack rows: such pairs are attacked again.
    """
    from smoothcert.runtime.attack_driver import AttackDriver

    attacks = AttackDriver(driver)
    attacks.check()
    again = {} if retry is None else _chosen(driver, attacks, retry)
    code = run_to_end(driver)
    if code not in (0, EXIT_OVER_QUARANTINE_BUDGET):
        return code
    return _attack_to_end(driver, attacks, again) or code


def _chosen(driver: Driver, attacks: AttackDriver, where: str) -> Chosen:
    """The pairs to attack again, before any work; says how many."""
    from smoothcert.runtime.attack_retry import choose_attacks, of_attacks
    from smoothcert.store import RunDirectory

    found = choose_attacks(RunDirectory.open(driver.url), where)
    mine = of_attacks(found, attacks.job.attacks)
    console = Console(stderr=True)
    console.print(f"{_count(mine):,} quarantined pairs to attack again", highlight=False)
    if len(mine) < len(found):
        console.print(
            f"{_count(found) - _count(mine):,} more belong to attacks that this job does not have",
            highlight=False,
        )
    return mine


def _count(chosen: Chosen) -> int:
    """Pairs, each counted once for every attack."""
    return sum(map(len, chosen.values()))


def _attack_to_end(driver: Driver, attacks: AttackDriver, again: Chosen) -> int:
    from smoothcert.cli.progress import ProgressLine
    from smoothcert.runtime.audit import audit_run
    from smoothcert.runtime.executor import Monitor
    from smoothcert.store import Query

    console, out = Console(stderr=True), Console()
    stopped_by = StopSignals(console)
    pairs = driver.run.info.pairs * len(driver.job.attacks)
    done = attacks.pairs_done(again)
    console.print(f"attacks: {len(driver.job.attacks)} of each pair", highlight=False)
    with ProgressLine(console, pairs=pairs, done=done, draws_per_pair=attacks.draws_per_pair) as line:
        report = attacks.run(
            Monitor(
                on_result=lambda result: None,
                on_progress=lambda p: line.update(draws=p.draws, pairs=p.pairs, quarantined=p.quarantined),
                stop=stopped_by.event,
            ),
            again,
        )
    if report.stopped and stopped_by.signal is not None:
        console.print(
            f"stopped; {report.missing:,} attack units are left: run the same command again to resume"
        )
        return 128 + stopped_by.signal
    with Query([driver.run]) as query:
        _print_rows(out, "Attack success rate over all pairs asked for", _success_table(query))
        _print_rows(out, "Cosine under noise: certified, attacked, clean", query.sql(_GAP).to_pylist())
    result = audit_run(driver.run)
    driver.run.write_document("audit.json", result.to_json().encode())
    return _verdict(console, out, report, result)


def _verdict(console: Console, out: Console, report: AttackReport, result: RunAudit) -> int:
    for line in result.lines():
        out.print(line, highlight=False, soft_wrap=True, markup=False)
    if report.missing:
        console.print(f"[bold red]{report.missing:,} of {report.units:,} attack units are not done:[/]")
        for unit, error in list(report.failed.items())[:5]:
            console.print(f"  {unit}: {error}", highlight=False, markup=False, soft_wrap=True)
        console.print("  remedy: mend the cause and run the same command again")
        return EXIT_MISSING_ROWS
    return 0 if result.sound else EXIT_NOT_SOUND


_GAP = (
    "SELECT subject, reference, radius, pairs, certified_pairs AS certifiable, certified_cosine AS certified, "
    'attacked_cosine_of_certified AS attacked, attacked_cosine AS "attacked, all", clean_cosine AS clean '
    "FROM robustness_gap"
)


def _success_table(query: Query) -> list[dict[str, object]]:
    """One row per attack and budget, one column per subject."""
    rows: dict[tuple[object, ...], dict[str, object]] = {}
    for each in query.sql("SELECT * FROM attack_success").to_pylist():
        key = (_question(each), *(each[name] for name in ("norm", "budget", "attack", "attack_id")))
        row = rows.setdefault(
            key,
            {
                "objective": _question(each),
                "budget": f"{each['norm']} {each['budget']:g}",
                "attack": each["attack"],
                "pairs": each["pairs"],
            },
        )
        rate = f"{each['success_rate']:.1%} [{each['rate_low']:.0%}, {each['rate_high']:.0%}]"
        if each["quarantined"]:
            rate += f" ({each['quarantined']:,} quarantined)"
        row[each["subject"]] = rate
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


def _print_rows(console: Console, title: str, rows: list[dict[str, object]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    if not rows:
        return
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*(escape(_shown(value)) for value in row.values()))
    console.print(table)


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
