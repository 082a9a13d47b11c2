"""What certificates of an honest run never show, one SQL statement a rule (theory.md section 4).

Each statement selects offending rows as (pair_id, detail). Bounds are computed anew from the row's confidence bounds,
so that a bound which was raised, by a bug or by hand, is found even where no attack comes near it. Certificates
about texts are in audit_textual.py, what attacks show in audit_attacks.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from smoothcert.certificates import LARGE_RADIUS_THRESHOLDS
from smoothcert.runtime.summary_scan import quoted
from smoothcert.store import CERTIFICATES, RunInfo, TableSchema

SLACK = 1e-9
"""Differences of float64 arithmetic that are none of anybody's rounding."""
SEARCH = 1e-5
"""Relative precision of a search for a radius."""
LAST_DIGIT = 1e-7
"""Difference that counts as rounding up: below any digit that is shown, above what versions of a solver differ by."""

_EXCEEDANCE = (
    f"CASE WHEN len(exceedance_lcb) = {len(LARGE_RADIUS_THRESHOLDS)} AND list_min(exceedance_lcb) >= 0 AND "
    "list_max(exceedance_lcb) <= 1 THEN exceedance_lcb END"
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that must not be.

    Attributes:
        name: short and stable.
        theory: item of theory.md that it guards.
        means: what an offending row says.
        sql: selects the offending rows of one run.
        pairs: whether the rule is about certificates that attacks have beaten: these are counted against alpha.
    """

    name: str
    theory: str
    means: str
    sql: str
    pairs: bool = False


_CLAIMING = (
    *("smooth_norm_lcb", "robustness_score_lcb", "exceedance_lcb", "fcsb", "angular", "clean_reference"),
    *("large_radius", "fcsb_radius", "angular_radius", "caption_similarity_lcb", "caption_bound"),
    *("class_margin_lcb", "class_rival_margin_lcb", "certified_radius", "retrieval_rival_margin_lcb"),
    *("retrieval_radius", "target_decision"),
)
"""Columns that claim something: NULL wherever a pair is quarantined."""


def certificate_rules(info: RunInfo) -> Iterator[Rule]:
    """What certificates alone show, for one run."""
    certify = info.job.certify
    here = f"FROM certificates WHERE run_id = {quoted(info.run_id)}"
    ok = f"{here} AND status = 'ok'"
    yield Rule("not-a-number", "4.1", "a number is NaN or infinite", broken_numbers(CERTIFICATES, here))
    yield Rule(
        "quarantined-claims",
        "4.1",
        "a quarantined pair carries a bound",
        f"SELECT pair_id, error_class AS detail {here} AND status <> 'ok' AND "
        f"coalesce({', '.join(f'{name}::VARCHAR' for name in _CLAIMING)}) IS NOT NULL",
    )
    yield Rule(
        "doubled-pair",
        "4.4",
        "a pair has more than one row",
        f"SELECT pair_id, count(*) || ' rows' AS detail {here} GROUP BY pair_id HAVING count(*) > 1",
    )
    yield Rule(
        "merged-attempts",
        "4.4",
        "rows of one unit come from several attempts",
        f"SELECT any_value(pair_id) AS pair_id, unit_id AS detail {here} "
        "GROUP BY unit_id HAVING count(DISTINCT attempt) > 1",
    )
    yield Rule(
        "other-question",
        "1",
        "sigma, alpha, seed, encoder or input size differ from the run's",
        f"SELECT pair_id, 'sigma ' || sigma || ', alpha ' || alpha || ', seed ' || seed || ', ' || input_height || "
        f"'x' || input_width AS detail {here} AND (sigma <> {number(certify.sigma)} OR "
        f"alpha <> {number(certify.alpha)} OR seed <> {certify.seed} OR encoder_digest <> "
        f"{quoted(info.encoder_digest)} OR (input_height, input_width) <> "
        f"(SELECT (mode(input_height), mode(input_width)) {here}))",
    )
    yield Rule(
        "above-estimate",
        "4.2",
        "a lower confidence bound is above its own estimate, or there is no such estimate",
        "SELECT pair_id, concat_ws(', ', 'N ' || smooth_norm, 'bound ' || smooth_norm_lcb, 'S ' || robustness_score, "
        f"'bound ' || robustness_score_lcb) AS detail {ok} AND ("
        + " OR ".join(
            f"({name}_lcb IS NOT NULL AND NOT coalesce({name}_lcb <= {name} AND {name} <= 1 + {number(SLACK)}, false))"
            for name in ("smooth_norm", "robustness_score", "caption_similarity", "class_margin")
        )
        + f" OR large_radius_bound({_EXCEEDANCE}, 0, {number(certify.sigma)}) > "
        f"2 * robustness_score - 1 + {number(SLACK)})",
    )
    yield Rule(
        "impossible-value",
        "2",
        "a score, norm or certified cosine is outside its range",
        f"SELECT pair_id, 'N ' || smooth_norm_lcb || ', S ' || robustness_score_lcb AS detail {ok} AND (NOT "
        "smooth_norm_lcb BETWEEN 0 AND 1 OR NOT robustness_score_lcb BETWEEN 0 AND 1 OR certified_radius < 0 OR "
        "retrieval_radius < 0 OR list_min(exceedance_lcb) < 0 OR list_max(exceedance_lcb) > 1 OR "
        "draws < 1 OR pilot_draws < 1 OR draws > "
        f"{certify.max_draws} OR "
        + " OR ".join(
            f"NOT {name}[{i}] BETWEEN 0 AND 1"
            for name in ("fcsb", "angular", "clean_reference", "large_radius")
            for i in range(1, len(certify.radii) + 1)
        )
        + ")",
    )
    yield from _rounded_up(info, ok)
    needed = f"-ln({number(certify.alpha)})"
    for position, target in enumerate(certify.targets, start=1):
        yield Rule(
            "target-without-evidence",
            "3",
            "a target counts as certified below its level",
            f"SELECT pair_id, concat_ws(' ', {quoted(target.name)}, 'at log e-value', log_e_value[{position}]) AS "
            f"detail {ok} AND target_decision[{position}] = 'certified' AND NOT "
            f"coalesce(log_e_value[{position}] >= {needed} - {number(SLACK)}, false)",
        )


def _rounded_up(info: RunInfo, ok: str) -> Iterator[Rule]:
    """Bounds and radii against the same ones computed from the row's confidence bounds."""
    certify = info.job.certify
    score = "CASE WHEN robustness_score_lcb BETWEEN 0 AND 1 THEN robustness_score_lcb END"
    norm = "CASE WHEN smooth_norm_lcb BETWEEN 0 AND 1 THEN smooth_norm_lcb END"
    sigma = f"{number(certify.sigma)}"
    checks = []
    for i, radius in enumerate(certify.radii, start=1):
        at = f"{number(radius)}"
        checks.append((f"fcsb[{i}]", f"fcsb({score}, {at}, {sigma})"))
        checks.append((f"angular[{i}]", f"angular_bound({norm}, {at}, {sigma})"))
        # T5 shares alpha between two bounds, so with both at the full alpha it can only be larger
        angle = f"acos(angular_bound({norm}, {at}, {sigma})) + acos(2 * ({score}) - 1)"
        by_angles = f"CASE WHEN {angle} < pi() / 2 THEN cos({angle}) END"
        checks.append((f"clean_reference[{i}]", f"greatest(fcsb({score}, {at}, {sigma}), {by_angles})"))
        checks.append((f"large_radius[{i}]", f"large_radius_bound({_EXCEEDANCE}, {at}, {sigma})"))
    for stored, computed in checks:
        yield Rule(
            "rounded-up",
            "4.2",
            "a stored bound or radius is larger than its confidence bound allows",
            f"SELECT pair_id, '{stored} is ' || stored || ', at most ' || coalesce(computed::VARCHAR, 'nothing') || "
            f"' follows' AS detail FROM (SELECT pair_id, {stored} AS stored, {computed} AS computed {ok}) "
            f"WHERE stored > coalesce(computed, -2) + {number(LAST_DIGIT)} * greatest(1, abs(stored))",
        )
    for j, cosine in enumerate(certify.cosines, start=1):
        for name, bound in (
            (f"fcsb_radius[{j}]", f"fcsb({score}, radius * (1 - {number(SEARCH)}), {sigma})"),
            (f"angular_radius[{j}]", f"angular_bound({norm}, radius * (1 - {number(SEARCH)}), {sigma})"),
        ):
            # a radius is found by search: what must hold is the bound just inside it
            yield Rule(
                "rounded-up",
                "4.2",
                "a stored bound or radius is larger than its confidence bound allows",
                f"SELECT pair_id, '{name} is ' || radius || ', where cosine {cosine:g} does not follow' AS detail "
                f"FROM (SELECT *, {name} AS radius {ok} AND NOT isinf({name})) "
                f"WHERE NOT coalesce({bound} >= {number(cosine)} - {number(LAST_DIGIT)}, false)",
            )
    for name in ("fcsb", "angular", "clean_reference", "large_radius"):
        rising = [f"{name}[{i + 1}] > {name}[{i}] + {number(SLACK)}" for i in range(1, len(certify.radii))]
        rising += [
            f"({name}[{i + 1}] IS NOT NULL AND {name}[{i}] IS NULL)" for i in range(1, len(certify.radii))
        ]
        if rising:
            yield Rule(
                "rises-with-radius",
                "2",
                "a bound is larger at a larger radius",
                f"SELECT pair_id, '{name} ' || {name}::VARCHAR AS detail {ok} AND ({' OR '.join(rising)})",
            )


def broken_numbers(table: TableSchema, here: str) -> str:
    """Rows where a number is NaN, or infinite where it may not be."""
    conditions = []
    for column in table.columns:
        if pa.types.is_floating(column.type):
            conditions.append(f"isnan({column.name})")
            if not column.infinite:
                conditions.append(f"isinf({column.name})")
        elif pa.types.is_list(column.type) and pa.types.is_floating(column.type.value_type):
            # as text: one test for any length
            test = "NaN" if column.infinite else "NaN|Infinity|inf"
            conditions.append(f"regexp_matches({column.name}::VARCHAR, '{test}', 'i')")
    return f"SELECT pair_id, 'see the row' AS detail {here} AND ({' OR '.join(conditions)})"


def number(value: float) -> str:
    """A number as an SQL literal, every digit of it."""
    return f"'{value!r}'::DOUBLE"
