"""What answers, and attacks on them, of an honest run never show."""

from __future__ import annotations

from collections.abc import Iterator

from smoothcert.audit.expressions import SLACK, number
from smoothcert.audit.rules import LAST_DIGIT, Rule
from smoothcert.sql.literals import quote
from smoothcert.store import RunInfo

_WHICH = "answer_id || ' ' || question_id || ' by ' || subject"
_ATTACK = f"attack || ' ' || attack_id || ' ' || norm || ' ' || budget || ' on ' || {_WHICH}"


def answer_rules(info: RunInfo) -> Iterator[Rule]:
    """Rules for one run.

    Args:
        info: the run.
    """
    mine = f"WHERE run_id = {quote(info.run_id)}"
    asked = f"FROM answers {mine}"
    yield Rule(
        "rounded-up",
        "T9",
        "a certified answer, or a bound of its score, is larger than what it rests on allows",
        f"SELECT pair_id, {_WHICH} || ': radius ' || vote_radius AS detail {asked} AND vote_radius IS NOT NULL AND "
        # what is no share, or no noise, proves nothing
        "NOT coalesce(vote_radius <= vote_radius(CASE WHEN vote_share_lcb BETWEEN 0 AND 1 THEN vote_share_lcb END, "
        f"CASE WHEN sigma BETWEEN 0 AND 1e300 THEN sigma END) + {number(LAST_DIGIT)}, false) "
        f"UNION ALL SELECT pair_id, {_WHICH} || ': score ' || list_max(score_bounds) AS detail {asked} AND "
        f"list_max(score_bounds) IS NOT NULL AND NOT coalesce(list_max(score_bounds) <= score_lcb, false)",
    )
    yield Rule(
        "above-estimate",
        "3",
        "a lower bound of votes or scores of answers is above their mean",
        f"SELECT pair_id, {_WHICH} || ': votes ' || vote_share_lcb AS detail {asked} AND vote_share_lcb IS NOT NULL "
        f"AND NOT coalesce(vote_share_lcb <= votes / nullif(draws, 0) + {number(LAST_DIGIT)}, false) UNION ALL SELECT "
        f"pair_id, {_WHICH} || ': score ' || score_lcb AS detail {asked} AND score_lcb IS NOT NULL AND NOT "
        f"coalesce(score_lcb <= score + {number(LAST_DIGIT)}, false)",
    )
    yield Rule(
        "over-budget",
        "5",
        "a perturbation of an attack on answers is larger than its budget",
        f"SELECT pair_id, {_ATTACK} AS detail FROM attacked_answers {mine} AND status = 'ok' AND NOT coalesce(CASE "
        f"norm WHEN 'l2' THEN perturbation_l2 ELSE perturbation_linf END <= budget * (1 + {number(SLACK)}), false)",
    )
    beaten = (
        f"SELECT pair_id, {_ATTACK} || '{{}}: at most ' || certified_share_ucb || ' of the draws give the answer that "
        f"is certified up to ' || vote_radius AS detail FROM {{}} {mine} AND (violation OR "
        "(vote_radius >= perturbation_l2 AND certified_share_ucb < 0.5))"
    )
    yield Rule(
        "violation",
        "5",
        "an attack changed an answer within its certified radius",
        f"{beaten.format('', 'attacked_answers')} UNION ALL "
        f"{beaten.format(', replaced by a retry', 'replaced_attacked_answers')}",
    )
