"""The figures of a run's answers: shares of questions that are right, and that are certified, by subject and kind.

Without intervals: questions about one image are not independent draws.
"""

from __future__ import annotations

from collections.abc import Iterable

from smoothcert.catalogue.answers import ANSWER_CERTIFICATES
from smoothcert.sql import Query
from smoothcert.sql.literals import quote

Counted = tuple[int, int]
"""How many hold, of how many."""


def answer_counts(query: Query, run_id: str, radii: Iterable[float]) -> dict[str, Counted]:
    """Figures by name, empty where nothing was asked.

    ``answers_right/<subject>`` and ``answers_right/<subject>_<kind>``: exact matches, or answers that hold a reference
    where votes are about that, of the questions with reference answers. ``answers_certified/r<radius>`` and
    ``answers_certified_right/r<radius>``, with ``_<kind>``: of all questions put to the vote.

    ``answers_cut/<subject>`` and ``answers_refused/<subject>``: answers that were cut at the longest allowed, and
    refusals, of those asked for; only where there are any.

    ``answers_attacked_right/<attack>_<norm><budget>_<subject>``: right answers under attack, of the questions with
    reference answers; ``answers_attack_success/...``: successes, of the questions that count (ASR).

    Args:
        query: an open query.
        run_id: the run.
        radii: of the job.
    """
    found: dict[str, Counted] = {}
    rows = query.rows(
        "SELECT subject, kind, count(coalesce(exact_match, contained_match))::BIGINT AS judged, "
        "count(*) FILTER (coalesce(exact_match, contained_match) = 1)::BIGINT AS good "
        f"FROM answers WHERE run_id = {quote(run_id)} GROUP BY ALL ORDER BY ALL"
    )
    for row in rows:
        _add(found, f"answers_right/{row['subject']}", row["kind"], row["good"], row["judged"])
    ends = query.rows(
        "SELECT subject, count(complete)::BIGINT AS asked, count(*) FILTER (NOT complete)::BIGINT AS cut, "
        "count(*) FILTER (refused)::BIGINT AS refused "
        f"FROM answers WHERE run_id = {quote(run_id)} GROUP BY subject ORDER BY subject"
    )
    for row in ends:
        for name in ("cut", "refused"):
            if row[name]:
                _add(found, f"answers_{name}/{row['subject']}", None, row[name], row["asked"])
    for radius in radii:
        votes = query.rows(
            f"SELECT * FROM certified_answers({radius!r}) WHERE run_id = {quote(run_id)} ORDER BY kind"
        )
        for row in votes:
            for name, count in (("certified", row["certified"]), ("certified_right", row["certified_right"])):
                _add(found, f"answers_{name}/r{radius:g}", row["kind"], count, row["questions"])
    attacked = query.rows(
        "SELECT attack, norm, objective, subject, budget, judged, right_count, attackable, successes "
        f"FROM attacked_answer_accuracy WHERE run_id = {quote(run_id)} ORDER BY ALL"
    )
    for row in attacked:
        goal = "" if row["objective"] == "answer" else f"_{row['objective']}"
        name = f"{row['attack']}{goal}_{row['norm']}{row['budget']:g}_{row['subject']}"
        _add(found, f"answers_attacked_right/{name}", None, row["right_count"], row["judged"])
        _add(found, f"answers_attack_success/{name}", None, row["successes"], row["attackable"])
    return found


def answer_scores(query: Query, run_id: str, radii: Iterable[float]) -> dict[str, tuple[int, float]]:
    """Mean over the questions with a score of what is certified of it, 0 where nothing is: (questions, mean) by name.

    ``answers_certified_score/r<radius>`` is about its mean over noisy images,
    ``answers_certified_score_percentile/r<radius>`` about its percentile; each also with ``_<kind>``. Empty where no
    score was asked for.

    Args:
        query: an open query.
        run_id: the run.
        radii: of the job.
    """
    found: dict[str, tuple[int, float]] = {}
    for radius in radii:
        rows = query.rows(
            f"SELECT kind, questions, certified_score, certified_score_percentile FROM certified_scores({radius!r}) "
            f"WHERE run_id = {quote(run_id)} ORDER BY kind"
        )
        for each in ANSWER_CERTIFICATES:
            column = each.figure.removeprefix("answers_")
            for row in rows if each.bound is not None else ():
                if row[column] is not None:
                    _average(found, f"{each.figure}/r{radius:g}", row["kind"], row["questions"], row[column])
    return found


def _average(
    found: dict[str, tuple[int, float]], name: str, kind: str | None, count: int, mean: float
) -> None:
    for key in (name, *([f"{name}_{kind}"] if kind else [])):
        before, old = found.get(key, (0, 0.0))
        found[key] = (before + count, (before * old + count * mean) / (before + count))


def _add(found: dict[str, Counted], name: str, kind: str | None, count: int, of: int) -> None:
    for key in (name, *([f"{name}_{kind}"] if kind else [])):
        before = found.get(key, (0, 0))
        found[key] = (before[0] + count, before[1] + of)
