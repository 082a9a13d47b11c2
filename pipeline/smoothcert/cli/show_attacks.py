"""What attacks show at their end: success and gap, and the audit that holds them against the certificates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from smoothcert.cli import exit_codes
from smoothcert.cli.options import typed_url
from smoothcert.cli.tables import print_table
from smoothcert.cli.terminal import Terminal

if TYPE_CHECKING:
    from smoothcert.job import Job
    from smoothcert.runtime.driver import Driver, PhaseReport
    from smoothcert.sql import Query
    from smoothcert.summary.attack_rules import RulesUnderAttack
    from smoothcert.summary.attacked import UnderAttack
    from smoothcert.summary.shares import Share


def show_attacks(driver: Driver, report: PhaseReport, terminal: Terminal) -> int:
    """Print what attacks achieved and audit the run; returns the exit code that the rows deserve."""
    from smoothcert.audit.kept import keep_audit
    from smoothcert.sql import Query
    from smoothcert.summary.attack_rules import rules_under_attack
    from smoothcert.summary.attacked import under_attack

    if report.stopped:
        return 0
    out = Terminal()
    with Query([driver.run]) as query:
        found = under_attack(query, driver.run.run_id)
        for question in dict.fromkeys(each.question for each in found):
            of_it = _without_repeats([each for each in found if each.question == question])
            _print_rows(out, _title(question, of_it), _rows_of(of_it))
        if found:
            out.say(_MEANING)
        by_rule = rows_by_rule(rules_under_attack(query, driver.run.run_id))
        _print_rows(out, "By other rules, the worst attack on each pair: right, and cosines", by_rule)
        if by_rule:
            out.say(_RULES)
        _print_rows(out, "Cosines under noise: certified, attacked and clean", query.rows(_GAP))
        quarantined = _quarantined(query, driver.job)
    result = keep_audit(driver.run)
    for text in result.lines():
        out.say(text)
    if report.missing:
        return 0
    over = _over_quarantine_budget(terminal, driver, quarantined)
    if not over:
        _print_next(out, typed_url(driver.run.url))
    if not result.sound:
        return exit_codes.NOT_SOUND
    return exit_codes.OVER_QUARANTINE_BUDGET if over else 0


def _print_next(terminal: Terminal, url: str) -> None:
    terminal.say()
    terminal.say("next:")
    terminal.say(f'  smoothcert query {url} "SELECT * FROM worst_pairs LIMIT 10"')
    terminal.say(f"  smoothcert audit {url}")


def _quarantined(query: Query, job: Job) -> list[tuple[str, str, int]]:
    """(attack, attack_id, pairs) for each attack of a job that has quarantined pairs, each pair counted once."""
    ids = ", ".join(f"'{section.attack_id}'" for section in job.attacks)
    rows = query.rows(
        "SELECT attack, attack_id, count(DISTINCT pair_id) AS pairs FROM attacks "
        f"WHERE status = 'quarantined' AND attack_id IN ({ids}) GROUP BY ALL ORDER BY ALL"
    )
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
            f'  why: smoothcert query {typed_url(driver.run.url)} "SELECT attack, error_class, '
            "any_value(error_message), count(*) FROM attacks WHERE status = 'quarantined' GROUP BY 1, 2\"",
        )
        terminal.say("  to attack them again: smoothcert attack JOB --retry true")
    return bool(over)


_GAP = (
    'SELECT subject, reference, radius, pairs, certified_pairs AS "with bound", certified_cosine AS certified, '
    'attacked_cosine_of_certified AS attacked, attacked_cosine AS "attacked, all", clean_cosine AS clean '
    "FROM robustness_gap"
)


_MEANING = (
    "Right: the attack's objective is not reached (of classification: the class is the label). Clean and robust "
    "accuracy are out of all pairs asked for, success out of the right ones; wrong counts pairs that were wrong before "
    "too. Pairs without an outcome yet count as neither. In brackets: 95% intervals."
)


_RULES = (
    "Out of labelled pairs with an outcome. Right by vote: most draws under attack vote for the label; by percentile: "
    "and at most the share certify.percentile of them has no margin above 0. Cosines to clean feature and caption: "
    "means of that percentile."
)


def _title(question: str, found: list[UnderAttack]) -> str:
    return f"Under attack: {question}, {max(each.pairs for each in found):,} pairs"


def _without_repeats(found: list[UnderAttack]) -> list[UnderAttack]:
    """All but the worst case over a single attack, which is that attack."""

    def where(each: UnderAttack) -> tuple[object, ...]:
        return each.subject, each.norm, each.budget

    counts = Counter(where(each) for each in found if not each.is_worst_case)
    return [each for each in found if not each.is_worst_case or counts[where(each)] > 1]


def _rows_of(found: list[UnderAttack]) -> list[dict[str, object]]:
    """One row an attack, subject and budget; a column for pairs without an outcome, where there are any."""
    rows: list[dict[str, object]] = []
    for each in found:
        known = each.pairs > each.quarantined + each.missing
        rows.append(
            {
                "subject": each.subject,
                "budget": f"{each.norm} {each.budget:g}",
                "attack": f"{each.method} of {each.attacks}" if each.is_worst_case else each.method,
                "clean accuracy": _percent(each.clean_accuracy, known),
                "robust accuracy": _interval(each.robust_accuracy, known),
                "success among right": _percent(each.success_among_right, known),
                "wrong under attack": _percent(each.wrong_under_attack, known),
                "no outcome": ", ".join(
                    f"{count:,} {name}"
                    for name, count in (("quarantined", each.quarantined), ("missing", each.missing))
                    if count
                ),
            }
        )
    if not any(row["no outcome"] for row in rows):
        for row in rows:
            del row["no outcome"]
    return rows


def rows_by_rule(found: Sequence[RulesUnderAttack]) -> list[dict[str, object]]:
    """One row a subject and budget, a column for each rule that decides anything; none where no rule does."""
    columns: dict[str, Callable[[RulesUnderAttack], str]] = {
        "right by vote": lambda each: _interval(each.vote_accuracy, True),
        "by percentile": lambda each: _interval(each.percentile_accuracy, True),
        "to clean": lambda each: _show_share(each.clean_percentile.mean),
        "to caption": lambda each: _show_share(each.caption_percentile.mean),
    }
    shown = {name: [of(each) for each in found] for name, of in columns.items()}
    shown = {name: cells for name, cells in shown.items() if set(cells) != {"-"}}
    rows: list[dict[str, object]] = []
    for at, each in enumerate(found if shown else ()):
        row: dict[str, object] = {"subject": each.subject, "budget": f"{each.norm} {each.budget:g}"}
        rows.append(row | {name: cells[at] for name, cells in shown.items()})
    return rows


def _percent(share: Share, known: bool) -> str:
    return f"{share.share:.1%}" if known and share.share is not None else "-"


def _interval(share: Share, known: bool) -> str:
    if not known or share.share is None or share.low is None or share.high is None:
        return "-"
    return f"{share.share:.1%} [{share.low:.0%}, {share.high:.0%}]"


def _print_rows(terminal: Terminal, title: str, rows: list[dict[str, object]]) -> None:
    if not rows:
        return
    header = tuple(rows[0])
    print_table(
        terminal,
        title,
        header,
        [[_show_share(value) for value in row.values()] for row in rows],
        names=sum(name in _NAMES for name in header),
        left=[name for name, value in rows[0].items() if isinstance(value, str)],
        whole=_NAMES,
    )


_NAMES = ("subject", "budget", "attack", "reference")
"""Columns that say what a row is."""


def _show_share(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
