"""What attacks left of the decisions by other rules than the mean, each judged by its own rule on fresh draws.

attack_rules    per subject with noise, norm and budget, the worst over all attacks on a pair: vote_accuracy, the
                labelled pairs whose vote under attack is the label; percentile_accuracy, those whose class by vote
                is the label and keeps a percentile of its margins above 0; each with its count, of how many
                (vote_right of vote_pairs) and interval; attacked_clean_percentile and attacked_caption_percentile,
                means of the job's percentile of a draw's cosine to the clean feature and similarity to the caption

Columns of the table ``attacks`` say the same of each attack. These are estimates from its draws; what they disprove of
certificates is the audit's.
"""

from __future__ import annotations

from smoothcert.sql.definitions import Definitions


def define_attack_rules_view(definitions: Definitions) -> None:
    """Define the view above; ``attacks`` and ``certificates`` are defined elsewhere."""
    definitions.add_sql("attack_rules", _RULES)


_RULES = """
CREATE VIEW attack_rules AS
WITH each AS (
    SELECT a.run_id, a.subject, a.norm, a.budget, a.pair_id, a.attacked_vote = c.label AS by_vote,
           a.vote_share_label = c.label AND a.class_percentile > 0 AS by_percentile,
           a.clean_percentile AS to_clean, a.caption_percentile AS to_caption
    FROM attacks a JOIN certificates c USING (run_id, pair_id) WHERE a.status = 'ok' AND a.sigma > 0
),
worst AS (
    SELECT run_id, subject, norm, budget, pair_id, bool_and(by_vote) AS by_vote,
           bool_and(by_percentile) AS by_percentile, min(to_clean) AS to_clean, min(to_caption) AS to_caption
    FROM each GROUP BY ALL
),
counted AS (
    SELECT run_id, subject, norm, budget, count(*) AS pairs, count(by_vote) AS vote_pairs,
           count(*) FILTER (by_vote) AS vote_right, count(by_percentile) AS percentile_pairs,
           count(*) FILTER (by_percentile) AS percentile_right, avg(to_clean) AS attacked_clean_percentile,
           avg(to_caption) AS attacked_caption_percentile
    FROM worst GROUP BY ALL
)
SELECT run_id, subject, norm, budget, pairs, vote_right, vote_pairs,
       vote_right / nullif(vote_pairs, 0) AS vote_accuracy,
       share_low(vote_right, vote_pairs, 1) AS vote_accuracy_low,
       share_high(vote_right, vote_pairs, 1) AS vote_accuracy_high,
       percentile_right, percentile_pairs, percentile_right / nullif(percentile_pairs, 0) AS percentile_accuracy,
       share_low(percentile_right, percentile_pairs, 1) AS percentile_accuracy_low,
       share_high(percentile_right, percentile_pairs, 1) AS percentile_accuracy_high,
       attacked_clean_percentile, attacked_caption_percentile
FROM counted ORDER BY run_id, norm, budget, subject
"""
