"""Views over attack outcomes, beside the certificates.

attacks         one row per pair, attack, subject and budget: schemas/attacks.v1.json
replaced_attacks
                rows of attacks that a retry replaced
attack_success  per attack, subject and budget: attack success rate over all pairs asked for (pairs_asked), with its
                interval; how many of them have an outcome (pairs), none yet (missing), or are quarantined; the
                rows with attack 'worst case' count a pair where any attack with that objective, reference, threshold
                and target succeeded on that subject and budget
robustness_gap  per subject with noise and l2 radius: certified, attacked and clean cosine side by side
worst_pairs     per pair, question (objective, reference, threshold, target), subject, norm and budget: its strongest
                attack, worst pairs first

Rates count a pair that is quarantined, or has no outcome yet, as asked for and not successfully attacked; how many
there are stands beside. Intervals are for the share in the population that the pairs were drawn from (95%,
Clopper-Pearson); their upper end counts pairs without an outcome as successes, since nobody knows.
"""

from __future__ import annotations

import duckdb

WORST_CASE = "worst case"
"""Name of the summary over attacks in ``attack_success``."""


def create_attack_views(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the views above; ``attacks`` must exist."""
    for sql in (_SUCCESS, _GAP, _WORST):
        connection.execute(sql)


REFERENCE_SQL = (
    "SELECT * REPLACE (coalesce(reference, CASE objective WHEN 'divergence' THEN 'clean' WHEN 'classification' THEN "
    "'label' END) AS reference)"
)
"""Rows from before there was a choice left what is the default now: they are the same question."""

_KEYS = "objective, reference, threshold, target, subject, norm, budget"
"""What must be the same for outcomes to be compared."""

_SUCCESS = f"""
CREATE VIEW attack_success AS
WITH each AS (
    SELECT run_id, attack, attack_id, {_KEYS}, pair_id,
           status <> 'ok' AS quarantined, coalesce(success, false) AS success, true AS decided
    FROM attacks
),
made AS (
    SELECT run_id, {_KEYS}, count(DISTINCT attack_id) AS attacks FROM attacks GROUP BY ALL
),
paired AS (
    SELECT run_id, {_KEYS}, pair_id, bool_and(quarantined) AS quarantined, bool_or(success) AS success,
           count(*) AS outcomes
    FROM each GROUP BY run_id, {_KEYS}, pair_id
),
worst AS (
    SELECT p.run_id, '{WORST_CASE}' AS attack, NULL AS attack_id, {", ".join(f"p.{key}" for key in _KEYS.split(", "))},
           p.pair_id, p.quarantined, p.success, p.success OR p.outcomes >= m.attacks AS decided
    FROM paired p JOIN made m
        ON p.run_id = m.run_id AND {" AND ".join(f"p.{k} IS NOT DISTINCT FROM m.{k}" for k in _KEYS.split(", "))}
),
counted AS (
    SELECT run_id, attack, attack_id, {_KEYS}, count(*) FILTER (decided) AS pairs,
           count(*) FILTER (quarantined AND decided) AS quarantined, count(*) FILTER (success) AS successes
    FROM (SELECT * FROM each UNION ALL SELECT * FROM worst)
    GROUP BY ALL
)
SELECT c.*, greatest(r.pairs, c.pairs) AS pairs_asked, pairs_asked - c.pairs AS missing,
       successes / pairs_asked AS success_rate,
       share_low(successes, pairs_asked, 1) AS rate_low,
       share_high(successes + missing, pairs_asked, 1) AS rate_high
FROM counted c JOIN runs r USING (run_id)
ORDER BY run_id, objective, reference, threshold, target, norm, budget, subject,
    attack = '{WORST_CASE}', attack, attack_id
"""
"""Of the worst case a pair is decided by a success, or once every attack that is in these rows has an outcome there."""

_GAP = """
CREATE VIEW robustness_gap AS
WITH each AS (
    SELECT run_id, subject, budget AS radius, pair_id, 'clean' AS reference, certified_to_clean AS certified,
           cosine_to_clean AS attacked, clean_cosine AS clean
    FROM attacks WHERE norm = 'l2' AND sigma > 0 AND status = 'ok'
    UNION ALL
    SELECT run_id, subject, budget, pair_id, 'smoothed', certified_to_smoothed, cosine_to_smoothed, 1.0
    FROM attacks WHERE norm = 'l2' AND sigma > 0 AND status = 'ok'
),
worst AS (
    SELECT run_id, subject, reference, radius, pair_id, max(certified) AS certified, min(attacked) AS attacked,
           max(clean) AS clean
    FROM each GROUP BY run_id, subject, reference, radius, pair_id
)
SELECT run_id, subject, reference, radius, count(*) AS pairs, count(certified) AS certified_pairs,
       avg(certified) AS certified_cosine,
       avg(attacked) FILTER (certified IS NOT NULL) AS attacked_cosine_of_certified,
       avg(attacked) AS attacked_cosine, avg(clean) AS clean_cosine
FROM worst GROUP BY run_id, subject, reference, radius ORDER BY run_id, subject, reference, radius
"""
"""Means over the pairs that were attacked; the certified mean is over the pairs where something is certified, and the
attacked mean is given over the same ones too, so that the two can be compared. The worst attack on a pair counts."""

_WORST = f"""
CREATE VIEW worst_pairs AS
SELECT run_id, pair_id, {_KEYS}, arg_min(attack, margin) AS attack,
       bool_or(success) AS success, min(margin) AS margin,
       arg_min(perturbation_l2, margin) AS perturbation_l2, arg_min(cosine_to_clean, margin) AS cosine_to_clean,
       arg_min(cosine_to_smoothed, margin) AS cosine_to_smoothed, max(certified_cosine) AS certified_cosine,
       bool_or(violation) AS violation, arg_min(attacked_label, margin) AS attacked_label
FROM attacks WHERE status = 'ok'
GROUP BY run_id, pair_id, {_KEYS}
ORDER BY margin
"""
