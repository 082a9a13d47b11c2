"""Views over attack outcomes, beside the certificates.

attacks         one row per pair, attack, subject and budget: schemas/attacks.v1.json
replaced_attacks
                rows of attacks that a retry replaced
attack_success  per attack, subject and budget, over all pairs asked for (pairs_asked): clean_accuracy, the pairs that
                are right without attack; robust_accuracy, those right before and after; success_among_right, the
                right ones that the attack turned; wrong_under_attack, all that are wrong after it, those that were
                wrong before included; each with its interval (<name>_low, <name>_high), their counts (right_before,
                right_after, turned, wrong_after); how many pairs have an outcome (pairs), none yet (missing), or are
                quarantined; the rows with attack 'worst case' count a pair as turned where any attack with that
                objective, reference, threshold and target turned it on that subject and budget, and attacks says how
                many those are; attack_method is the attack with what else matters to its search: 'pgd with BPDA', 'pgd
                from <surrogate>'
robustness_gap  per subject with noise and l2 radius: certified, attacked and clean cosine side by side
worst_pairs     per pair, question (objective, reference, threshold, target), subject, norm and budget: its strongest
                attack, worst pairs first

Right means that the objective is not reached: of classification, that the class is the label, or the one predicted. A
pair that is quarantined, or has no outcome yet, is asked for, and neither right nor wrong; how many there are stands
beside. Intervals are for the share in the population that the pairs were drawn from (95%, Clopper-Pearson); they leave
open what becomes of pairs without an outcome: lower ends take them for wrong and upper ends for right, in
wrong_under_attack the missing ones the other way round. Rows from before ``clean_margin`` was kept have no figures that
need it.
"""

from __future__ import annotations

from smoothcert.sql.definitions import Definitions

WORST_CASE = "worst case"
"""Name of the summary over attacks in ``attack_success``."""


def define_attack_views(definitions: Definitions) -> None:
    """Define the views above; ``attacks`` is defined elsewhere."""
    for name, sql in (("attack_success", _SUCCESS), ("robustness_gap", _GAP), ("worst_pairs", _WORST)):
        definitions.add_sql(name, sql)


REFERENCE_SQL = (
    "SELECT * REPLACE (coalesce(reference, CASE objective WHEN 'divergence' THEN 'clean' WHEN 'classification' THEN "
    "'label' END) AS reference)"
)
"""Rows from before there was a choice left what is the default now: they are the same question."""

_KEYS = "objective, reference, threshold, target, subject, norm, budget"
"""What must be the same for outcomes to be compared."""

_METHOD = """(attack || CASE WHEN contains(settings, '"bpda":true') THEN ' with BPDA' ELSE '' END || coalesce(
    ' from ' || regexp_replace(array_to_string(surrogates, ' and '), ' [0-9a-f]{12}( and |$)', '\\1', 'g'), ''))"""
"""The attack and what else matters to its search; a surrogate's name ends with the head of its digest."""

_SUCCESS = f"""
CREATE VIEW attack_success AS
WITH each AS (
    SELECT run_id, attack, {_METHOD} AS attack_method, attack_id, {_KEYS}, pair_id, status <> 'ok' AS quarantined,
           coalesce(success, false) AS wrong, clean_margin >= 0 AS right_clean, true AS decided, false AS uncertain,
           1 AS attacks
    FROM attacks
),
made AS (
    SELECT run_id, {_KEYS}, count(DISTINCT attack_id) AS attacks FROM attacks GROUP BY ALL
),
paired AS (
    SELECT run_id, {_KEYS}, pair_id, bool_and(quarantined) AS quarantined, bool_or(quarantined) AS lacks_some,
           bool_or(wrong) AS wrong, bool_and(right_clean) AS right_clean, count(*) AS outcomes
    FROM each GROUP BY run_id, {_KEYS}, pair_id
),
worst AS (
    SELECT p.run_id, '{WORST_CASE}' AS attack, '{WORST_CASE}' AS attack_method, NULL AS attack_id,
           {", ".join(f"p.{key}" for key in _KEYS.split(", "))},
           p.pair_id, p.quarantined, p.wrong, p.right_clean, p.wrong OR p.outcomes >= m.attacks AS decided,
           NOT decided OR (lacks_some AND NOT wrong) AS uncertain, m.attacks
    FROM paired p JOIN made m
        ON p.run_id = m.run_id AND {" AND ".join(f"p.{k} IS NOT DISTINCT FROM m.{k}" for k in _KEYS.split(", "))}
),
counted AS (
    SELECT run_id, attack, attack_method, attack_id, attacks, {_KEYS}, count(*) FILTER (decided) AS pairs,
           count(*) FILTER (quarantined AND decided) AS quarantined, count(*) FILTER (wrong) AS wrong_after,
           count(*) FILTER (right_clean) AS clean, count(right_clean) AS known,
           count(*) FILTER (right_clean AND wrong) AS beaten,
           count(*) FILTER (right_clean AND uncertain) AS open,
           count(*) FILTER (right_clean IS NULL AND NOT quarantined) > 0 AS older
    FROM (SELECT * FROM each UNION ALL SELECT * FROM worst)
    GROUP BY ALL
),
asked AS (
    SELECT c.*, greatest(r.pairs, c.pairs) AS pairs_asked, pairs_asked - c.pairs AS missing,
           pairs_asked - known AS unknown, CASE WHEN NOT older THEN clean END AS right_before,
           right_before - beaten - open AS right_after, CASE WHEN NOT older THEN beaten END AS turned
    FROM counted c JOIN runs r USING (run_id)
)
SELECT * EXCLUDE (clean, known, beaten, open, older, unknown),
       right_before / pairs_asked AS clean_accuracy,
       share_low(right_before, pairs_asked, 1) AS clean_accuracy_low,
       share_high(right_before + unknown, pairs_asked, 1) AS clean_accuracy_high,
       right_after / pairs_asked AS robust_accuracy,
       share_low(right_after, pairs_asked, 1) AS robust_accuracy_low,
       share_high(right_after + open + unknown, pairs_asked, 1) AS robust_accuracy_high,
       turned / nullif(right_before, 0) AS success_among_right,
       share_low(turned, right_before, 1) AS success_among_right_low,
       share_high(turned + open, right_before, 1) AS success_among_right_high,
       wrong_after / pairs_asked AS wrong_under_attack,
       share_low(wrong_after, pairs_asked, 1) AS wrong_under_attack_low,
       share_high(wrong_after + missing, pairs_asked, 1) AS wrong_under_attack_high
FROM asked
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
