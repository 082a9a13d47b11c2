"""Figures of answers: what the multimodal model says, what is certified of it, and what attacks make of it.

All without intervals: questions about one image are not independent draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from smoothcert.catalogue.answer_metrics import BY_ROW
from smoothcert.report.figure import Chart, FigureQuery
from smoothcert.store import RunInfo

_SECTION = "Answers"


def answer_questions(infos: Sequence[RunInfo]) -> Iterator[FigureQuery]:
    """The figures of answers of some runs, each over all of them."""
    yield _answers(infos)
    radii = sorted({r for info in infos if info.job.answer is not None for r in info.job.certify.radii})
    if radii:
        yield _certified(radii)
        yield _scores(radii)
    yield _attacked()


def _answers(infos: Sequence[RunInfo]) -> FigureQuery:
    sections = [info.job.answer for info in infos if info.job.answer is not None]
    shown = [
        name
        for name, metric in BY_ROW.items()
        if not metric.needs or any(getattr(section, metric.needs) is not None for section in sections)
    ]
    return FigureQuery(
        key="answers",
        section=_SECTION,
        title="Answers of the multimodal model",
        note="Means over the questions with reference answers. bare: the image as it is; smoothed: image tokens "
        "averaged over noisy copies; vote: the answer that most noisy copies get. Without intervals: questions about "
        "one image are not independent draws.",
        sql=f"SELECT run_id, subject, kind, questions, quarantined, {', '.join(shown)}, refused, cut "
        "FROM answer_accuracy ORDER BY ALL",
    )


def _at(function: str, radii: Sequence[float]) -> str:
    """A table function of a radius at all of them."""
    return " UNION ALL ".join(
        f"SELECT {radius!r}::DOUBLE AS radius, * FROM {function}({radius!r})" for radius in radii
    )


_KIND = "CASE WHEN grouping(kind) = 1 THEN '(all)' ELSE kind END AS about"
_GROUPS = (
    "GROUP BY GROUPING SETS ((run_id, radius, curve), (run_id, radius, curve, kind)) "
    "HAVING grouping(kind) = 1 OR kind IS NOT NULL ORDER BY run_id, about, curve, radius"
)


def _over_radius(value: str, title: str, scale: Literal["share", "score"]) -> Chart:
    return Chart(
        kind="curve",
        x="radius",
        y=value,
        series=("curve",),
        panel="about",
        panel_title="questions about",
        x_title="l2 radius of the attack, [0,1] pixels",
        y_title=title,
        scale=scale,
    )


def _certified(radii: Sequence[float]) -> FigureQuery:
    return FigureQuery(
        key="certified-answers",
        section=_SECTION,
        title="Answers certified by vote",
        note="Share of the questions whose answer, the one that most noisy copies get, is proven to stay under every "
        "attack up to the radius; and those among them that are right. Quarantined questions count as not certified. "
        "Between the marked radii lines only lead the eye.",
        sql=f"WITH counted AS ({_at('certified_answers', radii)}), each AS (\n"
        "SELECT run_id, kind, radius, questions, unnest(['certified', 'certified and right']) AS curve, "
        "unnest([certified, certified_right]) AS certified FROM counted)\n"
        f"SELECT run_id, {_KIND}, curve, radius, sum(certified) / sum(questions) AS share, "
        "sum(certified)::BIGINT AS certified, sum(questions)::BIGINT AS questions\n"
        f"FROM each {_GROUPS}",
        chart=_over_radius("share", "share of questions", "share"),
    )


def _scores(radii: Sequence[float]) -> FigureQuery:
    return FigureQuery(
        key="certified-scores",
        section=_SECTION,
        title="Certified scores of noisy answers",
        note="What is proven of the score of noisy answers under every attack up to the radius: of its mean over the "
        "noise, and of its percentile (the job's certify.percentile; by default the median). Means over the questions "
        "with a score, of lower bounds that are 0 where nothing is certified. Scores are between 0 and 1. Between the "
        "marked radii lines only lead the eye.",
        sql=f"WITH scored AS ({_at('certified_scores', radii)}), each AS (\n"
        "SELECT run_id, kind, radius, questions, "
        "unnest(['mean ' || score_metric, 'percentile of ' || score_metric]) AS curve, "
        "unnest([certified_score, certified_score_percentile]) AS certified FROM scored)\n"
        f"SELECT run_id, {_KIND}, curve, radius, sum(certified * questions) / sum(questions) AS certified, "
        "sum(questions)::BIGINT AS questions\n"
        f"FROM each WHERE certified IS NOT NULL {_GROUPS}",
        chart=_over_radius("certified", "score", "score"),
    )


def _attacked() -> FigureQuery:
    return FigureQuery(
        key="attacked-answers",
        section=_SECTION,
        title="Answers under attack",
        note="Right without attack and under it, among questions with reference answers; success: among those that the "
        "attack could turn. An answer that changed within its certified radius would contradict the certificate.",
        sql="SELECT run_id, attack, norm, budget, objective, subject, questions, quarantined, "
        "clean_acc AS right_before, acc AS right_under_attack, asr AS success, violations "
        "FROM attacked_answer_accuracy ORDER BY ALL",
    )
