"""Views over answers.

answers            one row per pair, question and subject: schemas/answers.v1.json
answer_accuracy    per run, question set, subject and kind of question: how many questions, and the means of the metrics
                   over those with reference answers
certified_answers  a table function of a radius: per run, question set and kind, how many votes are certified there, and
                   how many of these are right; certified_answers(0.125)
certified_scores   a table function of a radius: per run, question set and kind, the mean over questions with a score of
                   what is certified there of its mean and of its percentile under noise, 0 where nothing is;
                   certified_scores(0.125)
attacked_answer_accuracy
                   per run, attack, subject and budget: ACC without and under attack over questions with reference
                   answers, ASR over those that count (column success), and how many contradict a certificate

Questions about one image are not independent draws, so there are no intervals here. Quarantined rows count as asked and
not certified.
"""

from __future__ import annotations

from smoothcert.catalogue.answer_metrics import BY_ROW
from smoothcert.sql.definitions import Definitions


def define_answer_views(definitions: Definitions) -> None:
    """Define the views above; ``answers`` and ``attacked_answers`` are defined elsewhere."""
    definitions.add_sql("answer_accuracy", _ACCURACY)
    definitions.add_sql("certified_answers", _CERTIFIED)
    definitions.add_sql("certified_scores", _SCORES)
    definitions.add_sql("attacked_answer_accuracy", _ATTACKED)


_MEANS = ",\n".join(f"       avg({each.sql}) AS {name}" for name, each in BY_ROW.items())

_ACCURACY = f"""
CREATE VIEW answer_accuracy AS
SELECT run_id, answer_id, subject, kind, count(*) AS questions,
       count(*) FILTER (status <> 'ok') AS quarantined,
{_MEANS},
       count(*) FILTER (NOT complete) AS cut, count(*) FILTER (refused) AS refused
FROM answers GROUP BY ALL
"""

_CERTIFIED = """
CREATE MACRO certified_answers(at_radius) AS TABLE
SELECT run_id, answer_id, kind, count(*) AS questions,
       count(*) FILTER (vote_radius >= at_radius) AS certified,
       count(*) FILTER (vote_radius >= at_radius AND coalesce(exact_match, contained_match) = 1) AS certified_right,
       certified / questions AS certified_share, certified_right / questions AS certified_right_share
FROM answers WHERE subject = 'vote' GROUP BY ALL
"""

_SCORES = """
CREATE MACRO certified_scores(at_radius) AS TABLE
SELECT run_id, answer_id, kind, score_metric, count(*) AS questions, avg(score) AS score,
       avg(coalesce(score_bound(score_lcb, at_radius, sigma), 0)) AS certified_score,
       avg(score_percentile) AS score_percentile,
       CASE WHEN count(score_quantile_lcb) > 0 THEN
           avg(coalesce(score_percentile_bound(score_quantile_lcb, at_radius, sigma), 0))
       END AS certified_score_percentile
FROM answers WHERE score_metric IS NOT NULL GROUP BY ALL
"""

_ATTACKED = """
CREATE VIEW attacked_answer_accuracy AS
SELECT run_id, attack_id, answer_id, attack, norm, objective, subject, budget, count(*) AS questions,
       count(*) FILTER (status <> 'ok') AS quarantined,
       count(clean_right) AS judged, count(*) FILTER (clean_right) AS clean_right_count,
       count(*) FILTER ("right") AS right_count,
       count(success) AS attackable, count(*) FILTER (success) AS successes,
       clean_right_count / nullif(judged, 0) AS clean_acc, right_count / nullif(judged, 0) AS acc,
       successes / nullif(attackable, 0) AS asr, count(*) FILTER (violation) AS violations
FROM attacked_answers GROUP BY ALL
"""
