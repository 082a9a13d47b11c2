"""What one attack row of an honest run never says, whatever its certificate: numbers, and what was asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scipy.special import bdtrc

from smoothcert.audit.claims import quote_all
from smoothcert.audit.expressions import SLACK, number
from smoothcert.audit.rules import Check, Failing, Rule
from smoothcert.catalogue.certificates import quantities
from smoothcert.sql import Query
from smoothcert.sql.literals import quote
from smoothcert.store import RunDirectory, RunInfo
from smoothcert.store.asked import asked_tasks

COSINES = ("clean_cosine", *(each.attacked for each in quantities() if each.shown))
UPPER_BOUNDED = tuple(each.attacked for each in quantities() if each.attacked and not each.shown)
"""What has no lower bound."""
ROUNDING = 1e-5
"""Features in float32 are unit vectors up to 1e-6, by which upper bounds of inner products are widened too."""

FALSE_ALARM = 1e-6
"""Probability at which a number of estimates outside their bounds is no chance any more."""

_ASKED = ("attack", "norm", "objective", "alpha", "seed", "eot_draws", "evaluate_draws", "sigma")
"""Columns that what was asked for determines."""

Sections = Mapping[str, Mapping[str, Any]]
"""Attacks as they were asked for, by attack_id."""


def asked_sections(run: RunDirectory, query: Query) -> Sections:
    """What was asked of each attack that the run has rows of or was noted; from the rows where it was not noted.

    Raises:
        StoreError: reading failed.
    """
    found: dict[str, Mapping[str, Any]] = {}
    rows = query.rows(
        f"SELECT attack_id, min(settings) AS settings FROM attacks WHERE run_id = {quote(run.run_id)} GROUP BY ALL"
    )
    for row in rows:
        section = json.loads(row["settings"])
        if section.keys() >= {"subjects", "budgets", *_ASKED[:-1]}:
            found[row["attack_id"]] = section
    return found | {task.task_id: task.section for task in asked_tasks(run) if "attack" in task.section}


def outcome_rules(info: RunInfo, asked: Sections, which: str) -> Iterator[Rule]:
    """What single attack rows show, for one run.

    Args:
        info: the run.
        asked: attacks as they were asked for.
        which: SQL that names a row's attack.
    """
    here = f"FROM attacks WHERE run_id = {quote(info.run_id)}"
    ok = f"{here} AND status = 'ok'"
    yield Rule(
        "impossible-value",
        "5",
        "a cosine, margin or norm of an outcome is outside its range, or a lower bound above its upper bound",
        Failing([*_ranges(), *_norms()], ok, f"{which} AS which, sigma = 0 AS known"),
    )
    yield Rule(
        "success-without-margin",
        "5",
        "a result is marked as a success although its margin says otherwise, or the reverse",
        f"SELECT pair_id, {which} || ': margin ' || margin AS detail {ok} AND success IS DISTINCT FROM (margin < 0) "
        "AND margin IS NOT NULL",
    )
    if asked:
        yield Rule(
            "other-attack",
            "5",
            "level, seed, draws, noise or encoder of a result differ from the job",
            _not_as_asked(info, asked, here, which),
        )


def outside_their_bounds(query: Query, info: RunInfo, which: str) -> tuple[list[Rule], list[str]]:
    """Estimates outside their own confidence bounds: a finding where there are more than alpha makes likely.

    Estimates use all draws, bounds those that fixed nothing, so that one may pass the other where a bound errs: less
    often than alpha, but it does.

    Returns:
        Rules to hold rows against, and notes.
    """
    ok = f"FROM attacks WHERE run_id = {quote(info.run_id)} AND status = 'ok' AND sigma > 0"
    bounds = [(name, f"{name}_ucb", ">") for name in (*COSINES, *UPPER_BOUNDED)]
    bounds += [(name, f"{name}_lcb", "<") for name in COSINES]
    known = " + ".join(f"({name} IS NOT NULL AND {bound} IS NOT NULL)::INT" for name, bound, _ in bounds)
    outside = " + ".join(f"coalesce({name} {sign} {bound}, false)::INT" for name, bound, sign in bounds)
    rows = query.rows(f"SELECT alpha, sum({known}) AS bounds, sum({outside}) AS outside {ok} GROUP BY alpha")
    too_many = [
        row["alpha"] for row in rows if _unlikely(int(row["outside"]), int(row["bounds"]), row["alpha"])
    ]
    count = sum(int(row["outside"]) for row in rows)
    if too_many:
        checks = [
            Check(
                name,
                f"{{stored}} {sign} {{computed}}",
                f"which || ': {name} is ' || {{stored}} || ', {bound} ' || {{computed}}",
                bound,
            )
            for name, bound, sign in bounds
        ]
        source = f"{ok} AND alpha IN ({', '.join(number(alpha) for alpha in too_many)})"
        means = "more estimates lie outside their own confidence bounds than alpha explains"
        return [Rule("outside-bounds", "5", means, Failing(checks, source, f"{which} AS which"))], []
    if count:
        return [], [
            f"{count:,} estimates of outcomes are outside their own confidence bounds, as alpha allows"
        ]
    return [], []


def _unlikely(outside: int, bounds: int, alpha: float) -> bool:
    if not outside:
        return False
    return not 0 < alpha < 1 or float(bdtrc(outside - 1, bounds, alpha)) < FALSE_ALARM


def _ranges() -> Iterator[Check]:
    for name in (*COSINES, *UPPER_BOUNDED):
        exact = name in COSINES
        parts = (name, f"{name}_lcb", f"{name}_ucb") if exact else (name, f"{name}_ucb")
        for part in parts:
            limit = number(1 + (SLACK if exact else ROUNDING))
            yield Check(
                part,
                f"NOT abs({{stored}}) <= {limit}",
                f"which || ': {part} is ' || {{stored}}",
            )
        # of a subject without noise everything is known
        for part in parts[1:]:
            yield Check(
                part,
                "known AND (({stored} IS NULL) <> ({computed} IS NULL) OR abs({stored} - {computed}) > "
                f"{number(SLACK)})",
                f"which || ': {part} is ' || {{stored}} || ', {name} is ' || {{computed}} || ' without noise'",
                name,
            )
        if exact:
            yield Check(
                f"{name}_lcb",
                f"{{stored}} > {{computed}} + {number(SLACK)}",
                f"which || ': {name} is at least ' || {{stored}} || ' and at most ' || {{computed}}",
                f"{name}_ucb",
            )


def _norms() -> Iterator[Check]:
    most = f"perturbation_linf * sqrt(3.0 * input_height * input_width) * (1 + {number(SLACK)})"
    yield Check(
        "perturbation_l2",
        "{stored} < 0 OR {stored} > {computed}",
        "which || ': l2 norm ' || {stored} || ', at most ' || {computed} || ' by its largest change'",
        most,
    )
    yield Check(
        "perturbation_linf",
        f"{{stored}} < 0 OR {{stored}} > {{computed}} * (1 + {number(SLACK)})",
        "which || ': largest change ' || {stored} || ', l2 norm ' || {computed}",
        "perturbation_l2",
    )


def _not_as_asked(info: RunInfo, asked: Sections, here: str, which: str) -> str:
    rows = [row for attack_id, section in asked.items() for row in _expected(info, attack_id, section)]
    differs = " OR ".join(f"{name} IS DISTINCT FROM asked_{name}" for name in _ASKED)
    # a defence is known by its content where that was noted
    differs += (
        " OR coalesce(encoder_digest <> asked_digest, false) OR NOT list_contains(asked_budgets, budget)"
    )
    values = ", ".join(f"({', '.join(row)})" for row in rows)
    names = ", ".join(
        ("attack_id", "subject", *(f"asked_{name}" for name in _ASKED), "asked_digest", "asked_budgets")
    )
    return (
        f"SELECT pair_id, {which} || ': ' || concat_ws(', ', 'alpha ' || alpha, 'seed ' || seed, eot_draws || ' and ' "
        f"|| evaluate_draws || ' draws', 'sigma ' || sigma) AS detail FROM (SELECT * {here} AND attack_id IN "
        f"({quote_all(asked)})) LEFT JOIN (VALUES {values}) asked({names}) USING (attack_id, subject) WHERE "
        f"asked_attack IS NULL OR {differs}"
    )


def _expected(info: RunInfo, attack_id: str, section: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """The columns of the rows of one attack, one tuple for each subject, as SQL literals."""
    contents = section.get("contents", {})
    for subject in section["subjects"]:
        bare = subject == "bare"
        digest = info.encoder_digest if subject in ("bare", "smoothed") else contents.get(subject)
        yield (
            *(quote(text) for text in (attack_id, subject)),
            *(quote(section[name]) for name in ("attack", "norm", "objective")),
            number(section["alpha"]),
            str(section["seed"]),
            *(str(1 if bare else section[name]) for name in ("eot_draws", "evaluate_draws")),
            number(0.0 if bare else info.job.certify.sigma),
            "NULL" if digest is None else quote(digest),
            f"[{', '.join(number(budget) for budget in section['budgets'])}]",
        )
