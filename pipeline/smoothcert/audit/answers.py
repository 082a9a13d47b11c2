"""What answers, and attacks on them, of an honest run never show."""

from __future__ import annotations

from collections.abc import Iterator

from smoothcert.audit.expressions import SLACK, computed, number
from smoothcert.audit.rules import LAST_DIGIT, Check, Rule, select_failing
from smoothcert.catalogue.answers import ANSWER_CERTIFICATES, ANSWER_QUANTILES, ANSWER_SHARE
from smoothcert.certificates import PERCENTILE_SHIFTS, percentile_share
from smoothcert.sql.literals import quote
from smoothcert.store import RunInfo

_WHICH = "answer_id || ' ' || question_id || ' by ' || subject"
_ATTACK = f"attack || ' ' || attack_id || ' ' || norm || ' ' || budget || ' on ' || {_WHICH}"
_SIGMA = "CASE WHEN sigma BETWEEN 0 AND 1e300 THEN sigma END"
"""What is no noise proves nothing."""
_SCORES = "CASE WHEN list_min(score_draws) >= 0 AND list_max(score_draws) <= 1 THEN score_draws END"
_LEVEL = "CASE WHEN alpha > 0 AND alpha < 1 THEN alpha END"


def answer_rules(info: RunInfo) -> Iterator[Rule]:
    """Rules for one run.

    Args:
        info: the run.
    """
    mine = f"WHERE run_id = {quote(info.run_id)}"
    asked = f"FROM answers {mine}"
    yield Rule(
        "rounded-up",
        "T1, T9",
        "a certified answer, or a bound of its score, is larger than what it rests on allows",
        select_failing([*_claimed(info), *_recounted(info)], asked, "answer_id, question_id, subject"),
    )
    yield Rule(
        "above-estimate",
        "3",
        "a lower bound of votes or scores of answers is above their mean",
        select_failing(
            [
                _not_above("vote_share_lcb", "votes / nullif(draws, 0)"),
                _not_above("score_lcb", "score"),
                _not_above("score", f"list_avg({_SCORES})"),
            ],
            asked,
            "answer_id, question_id, subject",
        ),
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


def _not_above(name: str, most: str, where: str = "true") -> Check:
    """A number that may not be above another, where it is one."""
    return Check(
        f"CASE WHEN {where} THEN {name} END",
        f"{{stored}} IS NOT NULL AND NOT coalesce({{stored}} <= {{computed}} + {number(LAST_DIGIT)}, false)",
        f"{_WHICH} || ': {name} is ' || {{stored}} || ', at most ' || coalesce({{computed}}::VARCHAR, 'nothing') || "
        "' follows'",
        most,
    )


def _claimed(info: RunInfo) -> Iterator[Check]:
    """Bounds and radii against those computed from the row's confidence bounds."""
    for each in ANSWER_CERTIFICATES:
        if each.radius is not None:
            yield _not_above(each.radius.column, computed(each, each.radius, _SIGMA))
        if each.bound is not None:
            for i, radius in enumerate(info.job.certify.radii, start=1):
                yield _not_above(
                    f"{each.bound.column}[{i}]", computed(each, each.bound, _SIGMA, number(radius))
                )


def _recounted(info: RunInfo) -> Iterator[Check]:
    """Confidence bounds against those of as many votes, and of the same scores.

    Of votes only where their number was fixed beforehand: by betting it counts in which order they came.
    """
    votes = "CASE WHEN draws >= 1 AND votes BETWEEN 0 AND draws THEN votes / draws END"
    counted = f"vote_share_bound({votes}, draws, {_LEVEL})"
    column = ANSWER_SHARE.column
    yield _not_above(column, counted, "method = 'clopper_pearson'")
    yield _not_above("score_lcb", f"score_mean_bound({_SCORES}, {_LEVEL})")
    percentile = info.job.certify.percentile
    column = ANSWER_QUANTILES.column
    if percentile is None:
        yield Check(column, "{stored} IS NOT NULL", f"{_WHICH} || ': {column} of a job that asks for none'")
        return
    draws = f"CASE WHEN len({_SCORES}) >= 1 THEN len({_SCORES}) END"
    ranks = (
        f"quantile_rank({draws}, {number(share)}, {_LEVEL}, (method = 'betting')::DOUBLE)::BIGINT"
        for share in percentile_share(percentile, PERCENTILE_SHIFTS, 1.0).tolist()
    )
    follows = ", ".join(f"coalesce(list_sort({_SCORES})[{rank}], 0)" for rank in ranks)
    too_much = (
        "list_filter(list_zip({stored}, {computed}), lambda pair: NOT coalesce(pair[1] <= pair[2], false))"
    )
    yield Check(
        column,
        f"{{stored}} IS NOT NULL AND len({too_much}) > 0",
        f"{_WHICH} || ': {column} is ' || {{stored}}::VARCHAR || ', at most ' || {{computed}}::VARCHAR || ' follows'",
        f"[{follows}]",
    )
