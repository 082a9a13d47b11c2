"""What answers, and attacks on them, of an honest run never show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from smoothcert.audit.expressions import SLACK, compute_sql, number
from smoothcert.audit.rules import LAST_DIGIT, Check, Failing, Rule
from smoothcert.catalogue.answers import ANSWER_CERTIFICATES, ANSWER_QUANTILES, ANSWER_SHARE
from smoothcert.certificates import PERCENTILE_SHIFTS, percentile_share
from smoothcert.sql.literals import quote
from smoothcert.store import RunDirectory, RunInfo
from smoothcert.store.asked import asked_tasks

Sections = Mapping[str, Mapping[str, Any]]
"""Sections ``answer`` of a job by id, as they were noted when their work began."""

_WHICH = "answer_id || ' ' || question_id || ' by ' || subject"
_ATTACK = f"attack || ' ' || attack_id || ' ' || norm || ' ' || budget || ' on ' || {_WHICH}"
_SIGMA = "CASE WHEN sigma BETWEEN 0 AND 1e300 THEN sigma END"
"""What is no noise proves nothing."""
_SCORES = (
    "CASE WHEN list_min(score_draws) >= 0 AND list_max(score_draws) <= 1 AND list_count(score_draws) = draws "
    "AND len(score_draws) = draws THEN score_draws END"
)
"""Of every draw one, or they prove nothing: a selection would have another mean."""
_LEVEL = "CASE WHEN alpha > 0 AND alpha < 1 THEN alpha END"


def asked_answers(run: RunDirectory) -> Sections:
    """What was asked of each vote on answers.

    Raises:
        StoreError: reading failed.
    """
    return {
        task.task_id: task.section
        for task in asked_tasks(run)
        if "attack" not in task.section and task.section.keys() >= {"vote", "alpha"}
    }


def answer_rules(info: RunInfo, asked_for: Sections) -> Iterator[Rule]:
    """Rules for one run.

    Args:
        info: the run.
        asked_for: see ``asked_answers``.
    """
    mine = f"WHERE run_id = {quote(info.run_id)}"
    asked = f"FROM answers {mine}"
    yield Rule(
        "rounded-up",
        "T1, T9",
        "a certified answer, or a bound of its score, is larger than what it rests on allows",
        Failing([*_claimed(info), *_recounted(info)], asked, "answer_id, question_id, subject"),
    )
    yield Rule(
        "above-estimate",
        "3",
        "a lower bound of votes or scores of answers is above their mean",
        Failing(
            [
                _not_above("vote_share_lcb", "votes / nullif(draws, 0)"),
                _not_above("score_lcb", "score"),
                _not_above("score", f"list_avg({_SCORES})"),
            ],
            asked,
            "answer_id, question_id, subject",
        ),
    )
    settings = " OR ".join(_otherwise(info, asked_for))
    yield Rule(
        "other-question",
        "3",
        "noise, seed, alpha, method or number of draws of a vote on an answer differ from what was asked for",
        f"SELECT pair_id, concat_ws(', ', {_WHICH} || ': sigma ' || sigma, 'seed ' || certify_seed, 'alpha ' || alpha, "
        f"method, draws || ' draws') AS detail {asked} AND subject = 'vote' AND status = 'ok' AND "
        f"coalesce(votes, vote_share_lcb, score_lcb) IS NOT NULL AND ({settings})",
    )
    yield Rule(
        "target-without-evidence",
        "T9",
        "an answer is marked as certified at the radius of its vote, which its own radius does not reach",
        f"SELECT pair_id, {_WHICH} || ': radius ' || coalesce(vote_radius::VARCHAR, 'none') AS detail {asked} AND "
        f"decision = 'certified' AND NOT coalesce(vote_radius >= {_asked_radius(asked_for)}, false)",
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


def _otherwise(info: RunInfo, asked_for: Sections) -> Iterator[str]:
    """Conditions under which a vote is about something else than the job: what could make more of the same answers."""
    certify = info.job.certify
    yield f"sigma IS DISTINCT FROM {number(certify.sigma)} OR certify_seed <> {certify.seed}"
    for answer_id, section in asked_for.items():
        vote, alpha = section["vote"], section["alpha"]
        fixed = vote["radius"] is None
        method, draws = quote("clopper_pearson" if fixed else "betting"), int(vote["max_draws"])
        yield (
            f"answer_id = {quote(answer_id)} AND (alpha IS DISTINCT FROM "
            f"{number(certify.alpha if alpha is None else alpha)} OR method IS DISTINCT FROM {method} "
            f"OR draws {'<>' if fixed else '>'} {draws})"
        )


def _asked_radius(asked_for: Sections) -> str:
    """The radius that votes of a row's section decide about: NULL where there is none, 0 where it was not noted."""
    known = "".join(
        f"WHEN {quote(answer_id)} THEN "
        + ("NULL " if section["vote"]["radius"] is None else f"{number(section['vote']['radius'])} ")
        for answer_id, section in asked_for.items()
    )
    return f"CASE answer_id {known}ELSE 0 END" if known else "0"


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
            yield _not_above(each.radius.column, compute_sql(each, each.radius, _SIGMA))
        if each.bound is not None:
            for i, radius in enumerate(info.job.certify.radii, start=1):
                yield _not_above(
                    f"{each.bound.column}[{i}]", compute_sql(each, each.bound, _SIGMA, number(radius))
                )


def _recounted(info: RunInfo) -> Iterator[Check]:
    """Confidence bounds against those of as many votes, and of the same scores.

    Of votes only where their number was fixed beforehand: by betting it counts in which order they came, but no bound
    is above that of as many votes for the class and none against it (see ``rules._beyond_draws``).
    """
    votes = "CASE WHEN draws >= 1 AND votes BETWEEN 0 AND draws THEN votes / draws END"
    counted = f"vote_share_bound({votes}, draws, {_LEVEL})"
    column = ANSWER_SHARE.column
    yield _not_above(column, counted, "method = 'clopper_pearson'")
    unopposed = f"CASE WHEN votes BETWEEN 1 AND draws THEN pow({_LEVEL}, 1.0 / votes) ELSE 0 END"
    yield _not_above(column, unopposed, "method IS DISTINCT FROM 'clopper_pearson'")
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
