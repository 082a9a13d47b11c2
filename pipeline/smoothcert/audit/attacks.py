"""What attacks of an honest run never show: lost, doubled or beaten rows (docs/theory.md section 5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from smoothcert.audit.claims import (
    EVER,
    Comparison,
    Others,
    claims,
    claims_on_others,
    covered,
    same_encoder,
)
from smoothcert.audit.expressions import SLACK, compute_sql, number
from smoothcert.audit.rules import Check, Failing, Rule
from smoothcert.catalogue.certificates import of_quantity, quantities
from smoothcert.catalogue.quantities import Quantity
from smoothcert.sql.literals import quote
from smoothcert.store import RunInfo
from smoothcert.work.attack.asked import AskedAttack

WHICH = "attack || ' ' || attack_id || ' ' || norm || ' ' || budget || ' on ' || subject"
"""SQL that names a row's attack."""
_SHOWN = tuple(quantity for quantity in quantities() if quantity.shown)
"""Quantities of which attack rows repeat what is certified."""
ANY_LINE = 1e-5
"""Above what an angular bound gains where few budgets are asked about at once, and lines are not shared."""
WORTH_SHOWING = 1e-3
"""A certified cosine this far above 0 is certified in whatever order the arithmetic is done."""


def attack_rules(info: RunInfo, stale: Mapping[str, Sequence[str]]) -> Iterator[Rule]:
    """What rows of attacks show, for one run.

    Args:
        info: the run.
        stale: pairs by attack unit whose rows are older than their certificate, and will be replaced: they know
            nothing of it.
    """
    here = f"FROM attacks WHERE run_id = {quote(info.run_id)}"
    yield from _row_rules(info, here, WHICH)
    yield from _certificate_rules(info, stale, here, WHICH)


def missing_attacks(info: RunInfo, asked: Sequence[AskedAttack]) -> Rule:
    """That every pair has a row of every attack.

    Args:
        info: the run.
        asked: attacks that every pair of it is owed.
    """
    here = f"FROM attacks WHERE run_id = {quote(info.run_id)}"
    return Rule(
        "missing-attack",
        "5",
        "a pair lacks a row for one of the attacks",
        f"SELECT p.pair_id, k.attack || ' ' || k.attack_id || ' ' || k.norm || ' ' || k.budget || ' on ' || k.subject "
        f"AS detail FROM ({_owed(asked, here)}) k CROSS JOIN (SELECT pair_id FROM certificates WHERE run_id = "
        f"{quote(info.run_id)}) p ANTI JOIN (SELECT pair_id, attack_id, subject, budget {here}) a ON a.pair_id = "
        "p.pair_id AND a.attack_id = "
        "k.attack_id AND a.subject = k.subject AND a.budget = k.budget",
    )


def _row_rules(info: RunInfo, here: str, which: str) -> Iterator[Rule]:
    """What attack rows show by themselves."""
    yield Rule(
        "over-budget",
        "5",
        "a perturbation is larger than its budget",
        f"SELECT pair_id, {which} || ': ' || CASE norm WHEN 'l2' THEN perturbation_l2 ELSE perturbation_linf END AS "
        f"detail {here} AND status = 'ok' AND NOT coalesce(CASE norm WHEN 'l2' THEN perturbation_l2 ELSE "
        f"perturbation_linf END <= budget * (1 + {number(SLACK)}), false)",
    )
    yield Rule(
        "certified-beyond-l2",
        "1",
        "an l-infinity outcome, or one of another encoder or noise than the certificate's, is shown as certified",
        f"SELECT pair_id, {which} AS detail {here} AND (norm <> 'l2' OR sigma <> {number(info.job.certify.sigma)} OR "
        f"encoder_digest <> {quote(info.encoder_digest)}) AND (violation IS NOT NULL OR certified_cosine IS NOT NULL "
        f"OR {' OR '.join(f'{quantity.shown} IS NOT NULL' for quantity in _SHOWN)})",
    )


def _certificate_rules(
    info: RunInfo, stale: Mapping[str, Sequence[str]], here: str, which: str
) -> Iterator[Rule]:
    """What attack rows show of the certificates of their pairs."""
    joined = _join_sql(info)
    yield Rule(
        "other-units",
        "1",
        "attack and certificate were measured on other encoders, input sizes, noise or seeds",
        f"SELECT pair_id, a.input_height || 'x' || a.input_width || ' against ' || c.input_height || 'x' || "
        f"c.input_width || ', sigma ' || a.sigma || ' against ' || c.sigma AS detail {joined} AND "
        "(a.input_height <> c.input_height OR a.input_width <> c.input_width OR a.certify_seed <> c.seed OR a.dtype <> "
        "c.dtype OR (a.subject IN ('bare', 'smoothed') AND a.encoder_digest <> c.encoder_digest) OR "
        "(a.subject <> 'bare' AND a.sigma <> c.sigma))",
    )
    held = covered(info)
    lacking = [f"a.{quantity.attacked}_ucb IS NULL" for quantity in _SHOWN]
    yield Rule(
        "not-a-number",
        "4.1",
        "a result lacks the numbers that a certificate is compared with",
        f"SELECT pair_id, {which} AS detail {held} AND ({' OR '.join(lacking)} OR "
        "a.perturbation_l2 IS NULL OR (a.violation IS NULL AND a.certified_cosine IS NOT NULL)) "
        f"UNION ALL SELECT pair_id, {which} AS detail {here} AND status = 'ok' AND "
        "(margin IS NULL OR success IS NULL)",
    )
    current = f"{held} AND {_not_among(stale)}"
    textual = [claim for claim in claims(info) if claim.textual]
    yield Rule(
        "not-compared",
        "5",
        "a certificate speaks of the perturbation, and the outcome has no margin or similarity to hold against it, or "
        "one of another class",
        Failing(
            [
                Check(
                    f"{claim.speaks} AND {claim.reached} IS NULL AND NOT {claim.excused}",
                    "{stored}",
                    f"'{claim.name} not compared: ' || which",
                )
                for claim in textual
            ],
            current,
            f"{which} AS which",
        ),
    )
    yield _broke(same_encoder(info), which)
    yield from _copies(info, here, held, current)
    yield _beaten(((claim, "true") for claim in claims(info)), covered(info, EVER), which)
    yield Rule(
        "violation",
        "5",
        "a row is marked as a violation",
        f"SELECT pair_id, {which} || ': certified ' || certified_cosine AS detail {here} AND violation UNION ALL "
        f"SELECT pair_id, {which} || ', replaced by a retry: certified ' || certified_cosine AS detail FROM "
        f"replaced_attacks WHERE run_id = {quote(info.run_id)} AND violation",
        pairs=True,
    )


def other_run_rules(info: RunInfo, others: Others) -> Iterator[Rule]:
    """What attacks of other runs show of this run's certificates.

    Args:
        info: the run.
        others: runs on the same pairs.
    """
    which = f"{WHICH} || ' of run ' || a.run_id"
    yield _beaten(claims_on_others(info, others), covered(info, EVER, others), which)
    yield _broke(same_encoder(info, others=others), which)


def _beaten(held: Iterable[tuple[Comparison, str]], source: str, which: str) -> Rule:
    """Claims, each with the condition which attacks it is held against."""
    checks = [
        Check(
            f"CASE WHEN {against} AND {claim.where} THEN {claim.bound} END",
            "{computed} < {stored}",
            f"'{claim.name} ' || {{stored}} || ' beaten by ' || which || ': at most ' || {{computed}}",
            claim.reached,
        )
        for claim, against in held
    ]
    return Rule(
        "violation",
        "5",
        "an attack pushed a quantity below its certified bound",
        Failing(checks, source, f"{which} AS which"),
        pairs=True,
    )


def _broke(source: str, which: str) -> Rule:
    return Rule(
        "not-a-number",
        "4.1",
        "the encoder gave NaN or infinity under attack: certificates assume a feature of length 1 everywhere",
        f"SELECT pair_id, {which} AS detail {source} AND a.status = 'quarantined' AND a.error_class = 'NonFiniteError'",
    )


def _join_sql(info: RunInfo) -> str:
    return (
        f"FROM attacks a JOIN certificates c USING (run_id, pair_id) WHERE run_id = {quote(info.run_id)} "
        "AND a.status = 'ok' AND c.status = 'ok'"
    )


def _not_among(rows: Mapping[str, Sequence[str]]) -> str:
    """True of attack rows other than these (unit, pair)."""
    values = ", ".join(f"({quote(unit)}, {quote(pair)})" for unit, pairs in rows.items() for pair in pairs)
    return f"(a.unit_id, pair_id) NOT IN (VALUES {values})" if values else "true"


def _copies(info: RunInfo, here: str, held: str, current: str) -> Iterator[Rule]:
    """The certified cosines that attack rows show, against the certificates that they come from."""
    copies = {quantity.shown: _copied(quantity, info) for quantity in _SHOWN}
    yield Rule(
        "rounded-up",
        "4.2",
        "an attack row repeats a certificate as higher than it is",
        Failing(
            [
                Check(
                    f"a.{column}",
                    f"{{stored}} > coalesce({{computed}}, -2) + {number(ANY_LINE)}",
                    f"which || ': {column} is ' || {{stored}} || ', at most ' || coalesce({{computed}}::VARCHAR, "
                    "'nothing') || ' follows'",
                    follows,
                )
                for column, follows in copies.items()
            ],
            f"{held} AND a.norm = 'l2'",
            f"{WHICH} AS which",
        ),
    )
    left_out = Failing(
        [
            Check(
                f"a.{column}",
                f"{{stored}} IS NULL AND {{computed}} > {number(WORTH_SHOWING)}",
                f"which || ': {column} is missing, ' || {{computed}} || ' follows'",
                follows,
            )
            for column, follows in copies.items()
        ],
        f"{current} AND a.norm = 'l2'",
        f"{WHICH} AS which",
    )
    yield Rule(
        "other-certificate",
        "5",
        "an attack row shows something else as certified than its certificate says, or nothing",
        f"{left_out.rows} UNION ALL SELECT pair_id, {WHICH} || ': certified_cosine is ' || "
        f"coalesce(certified_cosine::VARCHAR, 'missing') AS detail {here} AND certified_cosine IS DISTINCT FROM "
        f"greatest({', '.join(copies)})",
    )


def _copied(quantity: Quantity, info: RunInfo) -> str:
    """What a row's certificates say of a quantity at the attack's budget: the best of them.

    Those that a row gives at any radius are computed for this one; the others are known at the radii of the job, and
    the bound at a larger radius covers every smaller one.
    """
    budget = "CASE WHEN a.budget BETWEEN 0 AND 1e300 THEN a.budget END"
    found = []
    for each in of_quantity(quantity):
        if each.bound is not None and each.anywhere:
            found.append(compute_sql(each, each.bound, "c.sigma", budget, "c."))
        elif each.bound is not None:
            found += [
                f"CASE WHEN a.budget <= {number(radius)} THEN c.{each.bound.column}[{i}] END"
                for i, radius in enumerate(info.job.certify.radii, start=1)
            ]
    return f"greatest({', '.join(found)})"


def _owed(asked: Sequence[AskedAttack], here: str) -> str:
    """Every (attack_id, attack, norm, subject, budget) that was asked for, or that some pair has."""
    present = f"SELECT DISTINCT attack_id, attack, norm, subject, budget {here}"
    values = [
        f"({quote(each.attack_id)}, {quote(each.attack)}, {quote(each.norm)}, {quote(subject)}, {number(budget)})"
        for each in asked
        for subject in each.subjects
        for budget in each.budgets
    ]
    if not values:
        return present
    return f"{present} UNION SELECT * FROM (VALUES {', '.join(values)})"
