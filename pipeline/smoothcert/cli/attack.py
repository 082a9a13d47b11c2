"""``smoothcert attack``: certify what is left of a job, attack every pair, and audit the one by the other."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from smoothcert.cli.options import ExecutorKind, JobFile, Overrides, overrides, shown
from smoothcert.cli.running import EXIT_MISSING_ROWS, EXIT_OVER_QUARANTINE_BUDGET, StopSignals, run_to_end
from smoothcert.job import load_job
from smoothcert.job.attacks import EOT_DRAWS, EVALUATE_DRAWS

if TYPE_CHECKING:
    from smoothcert.job import Job
    from smoothcert.runtime.attack_driver import AttackDriver, AttackReport
    from smoothcert.runtime.driver import Driver
    from smoothcert.runtime.retry import Chosen
    from smoothcert.sql import Query

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
    the end. Exit codes: as certify; 1 the audit found something; 5 attack units without rows, or workers failed; 6 more
    quarantined pairs than output.quarantine_budget, certified or attacked.
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
    for line in _few_draws(attacks.job):
        Console(stderr=True).print(f"[yellow]{line}[/]", highlight=False, soft_wrap=True)
    again = {} if retry is None else _chosen(driver, attacks, retry)
    console = Console(stderr=True)
    stopped_by = StopSignals(console)
    code = run_to_end(driver, stopped_by=stopped_by)
    if code not in (0, EXIT_OVER_QUARANTINE_BUDGET):
        return code
    if stopped_by.signal is not None:
        console.print("stopped before the attacks: run the same command again to resume")
        return 128 + stopped_by.signal
    return _attack_to_end(driver, attacks, again, console, stopped_by) or code


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


def _attack_to_end(
    driver: Driver, attacks: AttackDriver, again: Chosen, console: Console, stopped_by: StopSignals
) -> int:
    from smoothcert.audit.audit import audit_run
    from smoothcert.cli.progress import ProgressLine
    from smoothcert.runtime.executor import Monitor
    from smoothcert.sql import Query

    out = Console()
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
    _print_examples(console, report, shown(driver.run.url))
    with Query([driver.run]) as query:
        success = query.sql("SELECT * FROM attack_success").to_pylist()
        _print_rows(out, _success_title(success), _success_table(success))
        _print_rows(out, "Cosine under noise: certified, attacked, clean", query.sql(_GAP).to_pylist())
        quarantined = _quarantined(query, attacks.job)
    result = audit_run(driver.run)
    driver.run.write_document("audit.json", result.to_json().encode())
    for text in result.lines():
        out.print(text, highlight=False, soft_wrap=True, markup=False)
    if report.missing:
        return _say_missing(console, report)
    over = _over_quarantine_budget(console, driver, quarantined)
    if not result.sound:
        return EXIT_NOT_SOUND
    return EXIT_OVER_QUARANTINE_BUDGET if over else 0


def _few_draws(job: Job) -> list[str]:
    """One line for each attack of a subject under noise whose draws are too few for an honest picture."""
    lines = []
    for number, section in enumerate(job.attacks):
        if section.subjects == ("bare",):
            continue
        few = [
            f"{name}={value} (use {least:,} or more)"
            for name, value, least in (
                ("eot_draws", section.eot_draws, EOT_DRAWS),
                ("evaluate_draws", section.evaluate_draws, EVALUATE_DRAWS),
            )
            if value < least
        ]
        if few:
            lines.append(
                f"attacks.{number} ({section.attack}): {' and '.join(few)}: under noise this attack may look weaker "
                "than it is"
            )
    return lines


def _print_examples(console: Console, report: AttackReport, url: str) -> None:
    if report.examples_wanted:
        console.print(
            f"{report.examples:,} strongest examples are stored under {url}/examples",
            highlight=False,
            soft_wrap=True,
        )
    if report.examples < report.examples_wanted:
        console.print(
            f"[yellow]keep asks for {report.examples_wanted:,}:[/] what was attacked before keep was raised is not "
            "stored; another seed, or another output.run, attacks anew",
            highlight=False,
            soft_wrap=True,
        )


def _say_missing(console: Console, report: AttackReport) -> int:
    console.print(f"[bold red]{report.missing:,} of {report.units:,} attack units are not done:[/]")
    for unit, error in list(report.failed.items())[:5]:
        console.print(f"  {unit}: {error}", highlight=False, markup=False, soft_wrap=True)
    console.print("  remedy: mend the cause and run the same command again")
    return EXIT_MISSING_ROWS


def _quarantined(query: Query, job: Job) -> list[tuple[str, str, int]]:
    """(attack, attack_id, pairs) for each attack of a job that has quarantined pairs, each pair counted once."""
    ids = ", ".join(f"'{section.attack_id}'" for section in job.attacks)
    rows = query.sql(
        "SELECT attack, attack_id, count(DISTINCT pair_id) AS pairs FROM attacks "
        f"WHERE status = 'quarantined' AND attack_id IN ({ids}) GROUP BY ALL ORDER BY ALL"
    ).to_pylist()
    return [(row["attack"], row["attack_id"], row["pairs"]) for row in rows]


def _over_quarantine_budget(console: Console, driver: Driver, found: list[tuple[str, str, int]]) -> bool:
    """Say where an attack has more quarantined pairs than the job allows; whether there is one."""
    pairs, budget = driver.run.info.pairs, driver.job.output.quarantine_budget
    over = [each for each in found if each[2] > budget * pairs]
    for attack, attack_id, count in over:
        console.print(
            f"[bold red]attack {attack} {attack_id}: {count:,} of {pairs:,} pairs ({count / pairs:.1%}) are "
            f"quarantined, more than output.quarantine_budget={budget:g} allows[/]",
            highlight=False,
            soft_wrap=True,
        )
    if over:
        console.print(
            f'  why: smoothcert query {shown(driver.run.url)} "SELECT attack, error_class, any_value(error_message), '
            "count(*) FROM attacks WHERE status = 'quarantined' GROUP BY 1, 2\"",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
        console.print("  again: smoothcert attack JOB --retry true", highlight=False)
    return bool(over)


_GAP = (
    "SELECT subject, reference, radius, pairs, certified_pairs AS certifiable, certified_cosine AS certified, "
    'attacked_cosine_of_certified AS attacked, attacked_cosine AS "attacked, all", clean_cosine AS clean '
    "FROM robustness_gap"
)


def _success_title(found: list[dict[str, Any]]) -> str:
    title = "Attack success rate over all pairs asked for"
    if any(row["missing"] for row in found):
        return f"{title}: some have no outcome yet, and count as not attacked successfully"
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
