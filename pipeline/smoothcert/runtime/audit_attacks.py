"""What attacks of an honest run never show: no row missing or doubled, no certificate beaten (theory.md section 5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from smoothcert.runtime.attack_asked import AskedAttack
from smoothcert.runtime.audit_rules import SLACK, Rule, broken_numbers, number
from smoothcert.runtime.summary_scan import quoted
from smoothcert.store import ATTACKS, RunInfo


def attack_rules(info: RunInfo, asked: Sequence[AskedAttack]) -> Iterator[Rule]:
    """What attacks show, for one run.

    Args:
        info: the run.
        asked: attacks that every pair of it is owed.
    """
    here = f"FROM attacks WHERE run_id = {quoted(info.run_id)}"
    which = "attack || ' ' || attack_id || ' ' || norm || ' ' || budget || ' on ' || subject"
    yield Rule("not-a-number", "4.1", "a number is NaN or infinite", broken_numbers(ATTACKS, here))
    yield Rule(
        "doubled-attack",
        "4.4",
        "a pair has more than one row of one attack, subject and budget",
        f"SELECT pair_id, any_value({which}) AS detail {here} GROUP BY pair_id, attack_id, subject, budget "
        "HAVING count(*) > 1",
    )
    yield Rule(
        "missing-attack",
        "5",
        "a pair has no row of an attack that it is owed",
        f"SELECT p.pair_id, k.attack || ' ' || k.attack_id || ' ' || k.norm || ' ' || k.budget || ' on ' || k.subject "
        f"AS detail FROM ({_owed(asked, here)}) k CROSS JOIN (SELECT pair_id FROM certificates WHERE run_id = "
        f"{quoted(info.run_id)}) p ANTI JOIN (SELECT pair_id, attack_id, subject, budget {here}) a ON a.pair_id = "
        "p.pair_id AND a.attack_id = "
        "k.attack_id AND a.subject = k.subject AND a.budget = k.budget",
    )
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
        f"encoder_digest <> {quoted(info.encoder_digest)}) AND (violation IS NOT NULL OR certified_cosine IS NOT NULL "
        "OR certified_to_clean IS NOT NULL OR certified_to_smoothed IS NOT NULL)",
    )
    joined = _joined(info)
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
    covered = _covered(info)
    # what disproved a certificate once is not undone by attacking again
    ever = _covered(info, "(SELECT * FROM attacks UNION ALL BY NAME SELECT * FROM replaced_attacks)")
    yield Rule(
        "not-a-number",
        "4.1",
        "an outcome lacks the numbers that a certificate is held against",
        f"SELECT pair_id, {which} AS detail {covered} AND (a.cosine_to_clean_ucb IS NULL OR a.cosine_to_smoothed_ucb "
        "IS NULL OR (a.violation IS NULL AND a.certified_cosine IS NOT NULL)) "
        f"UNION ALL SELECT pair_id, {which} AS detail {here} AND status = 'ok' AND "
        "(margin IS NULL OR success IS NULL)",
    )
    yield Rule(
        "not-a-number",
        "4.1",
        "the encoder gave NaN or infinity under attack: certificates assume a feature of length 1 everywhere",
        f"SELECT pair_id, {which} AS detail FROM attacks a JOIN certificates c USING (run_id, pair_id) WHERE run_id = "
        f"{quoted(info.run_id)} AND a.status = 'quarantined' AND a.error_class = 'NonFiniteError' AND c.status = 'ok' "
        "AND a.encoder_digest = c.encoder_digest",
    )
    yield from _copies(info, covered, which)
    for claim in _claims(info):
        yield Rule(
            "violation",
            "5",
            "an attack achieved less than certified",
            f"SELECT pair_id, '{claim.name} ' || bound || ' beaten by ' || {which} || ': at most ' || reached AS "
            f"detail FROM (SELECT pair_id, a.attack, a.attack_id, a.norm, a.budget, a.subject, {claim.bound} AS bound, "
            f"{claim.reached} AS reached {ever} AND {claim.where}) WHERE reached < bound",
            pairs=True,
        )
    yield Rule(
        "violation",
        "5",
        "a row calls itself a violation",
        f"SELECT pair_id, {which} || ': certified ' || certified_cosine AS detail {here} AND violation UNION ALL "
        f"SELECT pair_id, {which} || ', replaced by a retry: certified ' || certified_cosine AS detail FROM "
        f"replaced_attacks WHERE run_id = {quoted(info.run_id)} AND violation",
        pairs=True,
    )


def tested_pairs(info: RunInfo) -> str:
    """SQL that selects the pairs of whose certificates an attack tested one that says something there."""
    tested = " OR ".join(
        f"({claim.where} AND ({claim.bound}) IS NOT NULL AND {claim.reached} IS NOT NULL)"
        for claim in _claims(info)
    )
    return f"SELECT DISTINCT pair_id {_covered(info)} AND ({tested})"


def _joined(info: RunInfo, attacks: str = "attacks") -> str:
    return (
        f"FROM {attacks} a JOIN certificates c USING (run_id, pair_id) WHERE run_id = {quoted(info.run_id)} "
        "AND a.status = 'ok' AND c.status = 'ok'"
    )


def _covered(info: RunInfo, attacks: str = "attacks") -> str:
    """A certificate is about its own encoder and noise: defences are other encoders."""
    return f"{_joined(info, attacks)} AND a.norm = 'l2' AND a.encoder_digest = c.encoder_digest AND a.sigma = c.sigma"


def _copies(info: RunInfo, covered: str, which: str) -> Iterator[Rule]:
    """The certified cosines that attack rows show, against the certificates that they come from."""
    listed = [
        f"CASE WHEN a.budget <= {number(radius)} THEN c.{name}[{i}] END"
        for i, radius in enumerate(info.job.certify.radii, start=1)
        for name in ("clean_reference", "large_radius")
    ]
    score = "CASE WHEN c.robustness_score_lcb BETWEEN 0 AND 1 THEN c.robustness_score_lcb END"
    norm = "CASE WHEN c.smooth_norm_lcb BETWEEN 0 AND 1 THEN c.smooth_norm_lcb END"
    for column, computed in (
        ("certified_to_clean", f"greatest(fcsb({score}, a.budget, c.sigma), {', '.join(listed)})"),
        ("certified_to_smoothed", f"angular_bound({norm}, a.budget, c.sigma)"),
    ):
        yield Rule(
            "rounded-up",
            "4.2",
            "an attack row shows more as certified than its certificate says",
            f"SELECT pair_id, {which} || ': {column} is ' || stored || ', at most ' || coalesce(computed::VARCHAR, "
            f"'nothing') || ' follows' AS detail FROM (SELECT pair_id, a.attack, a.attack_id, a.norm, a.budget, "
            f"a.subject, a.{column} AS stored, {computed} AS computed {covered}) WHERE "
            f"stored > coalesce(computed, -2) + {number(SLACK)}",
        )


@dataclass(frozen=True, slots=True)
class _Claim:
    """A certified lower bound, and what an attack achieved of the same quantity, in SQL."""

    name: str
    bound: str
    reached: str
    where: str = "true"


def _claims(info: RunInfo) -> Iterator[_Claim]:
    # every perturbation has a norm of its own: what is certified there is at least what is certified at the budget
    reach = f"a.perturbation_l2 * (1 + {number(SLACK)})"
    clean, smoothed, caption = "a.cosine_to_clean_ucb", "a.cosine_to_smoothed_ucb", "a.caption_similarity_ucb"
    score = "CASE WHEN c.robustness_score_lcb BETWEEN 0 AND 1 THEN c.robustness_score_lcb END"
    norm = "CASE WHEN c.smooth_norm_lcb BETWEEN 0 AND 1 THEN c.smooth_norm_lcb END"
    yield _Claim("fcsb", f"fcsb({score}, {reach}, c.sigma)", clean)
    yield _Claim("angular", f"angular_bound({norm}, {reach}, c.sigma)", smoothed)
    yield _Claim("certified_to_clean", "a.certified_to_clean", clean)
    yield _Claim("certified_to_smoothed", "a.certified_to_smoothed", smoothed)
    for i, radius in enumerate(info.job.certify.radii, start=1):
        for name, reached in (
            ("fcsb", clean),
            ("clean_reference", clean),
            ("large_radius", clean),
            ("angular", smoothed),
            ("caption_bound", caption),
        ):
            yield _Claim(f"{name}[{i}]", f"c.{name}[{i}]", reached, f"a.perturbation_l2 <= {number(radius)}")
    yield _Claim(
        "class",
        "0.0",
        "a.class_margin_ucb",
        f"a.class_margin_label = c.predicted_label AND {reach} <= c.certified_radius",
    )
    yield _Claim("retrieval", "0.0", "a.retrieval_margin_ucb", f"{reach} <= c.retrieval_radius")


def _owed(asked: Sequence[AskedAttack], here: str) -> str:
    """Every (attack_id, attack, norm, subject, budget) that was asked for, or that some pair has."""
    present = f"SELECT DISTINCT attack_id, attack, norm, subject, budget {here}"
    values = [
        f"({quoted(each.attack_id)}, {quoted(each.attack)}, {quoted(each.norm)}, {quoted(subject)}, {number(budget)})"
        for each in asked
        for subject in each.subjects
        for budget in each.budgets
    ]
    if not values:
        return present
    return f"{present} UNION SELECT * FROM (VALUES {', '.join(values)})"
