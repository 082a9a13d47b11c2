"""The pairs that the page shows one by one: the least and the most robust ones, and some that were quarantined."""

from __future__ import annotations

import shlex
from typing import Any

from smoothcert.job import Job
from smoothcert.report.figure import cell, shorten
from smoothcert.report.pictures import attack_pictures, source_pictures
from smoothcert.sql import Query
from smoothcert.sql.literals import quote
from smoothcert.store import RunDirectory
from smoothcert.work.published.importing import PUBLISHED

_COLUMNS = (
    "pair_id, unit_id, source_uri, status, label, caption, clean_label, predicted_label, vote_label, certified_radius, "
    "vote_radius, smooth_norm_lcb, robustness_score_lcb, draws, noise, error_class, error_message, "
    "input_height, input_width"
)
_MOST_ANSWERS = 6


def shown_pairs(query: Query, run: RunDirectory, count: int) -> tuple[list[dict[str, Any]], str, list[str]]:
    """Pairs of one run with pictures, numbers, attacks and answers.

    Args:
        query: an open query; other runs may be in it.
        run: the run.
        count: how many of the least robust, of the most robust, and at most of the quarantined pairs.

    Returns:
        The pairs, the SQL that chose them, and what could not be shown, in words.

    Raises:
        StoreError: reading rows failed. Pictures that cannot be read are told in words instead.
    """
    (row,) = query.rows(
        f"SELECT count(*) AS ok FROM certificates WHERE run_id = {quote(run.run_id)} AND status = 'ok'"
    )
    # of few pairs half are the least robust and half the most: none is shown twice
    least, most = min(count, (row["ok"] + 1) // 2), min(count, row["ok"] // 2)
    sql = _chosen(run.run_id, run.info.job, least, most, count)
    rows = query.rows(sql)
    if not rows:
        return [], sql, []
    # a published log is a source of no pictures
    pictures, missing = source_pictures(run, [row for row in rows if row["noise"] != PUBLISHED])
    attacked = attack_pictures(run, [row["pair_id"] for row in rows])
    asked = ", ".join(quote(row["pair_id"]) for row in rows)
    attacks = _grouped(query, _ATTACKS.format(run=quote(run.run_id), pairs=asked))
    answers = _grouped(query, _ANSWERS.format(run=quote(run.run_id), pairs=asked))
    attacked_answers = _grouped(query, _ATTACKED_ANSWERS.format(run=quote(run.run_id), pairs=asked))
    pairs = []
    for row in rows:
        pair_id = row["pair_id"]
        facts = {
            name: cell(value) for name, value in row.items() if name not in ("unit_id", "source_uri", "noise")
        }
        pairs.append(
            facts
            | {
                "pair_id": shorten(pair_id, 1000),
                "pictures": pictures.get(pair_id, {}),
                "attacked": attacked.get(pair_id),
                "attacks": attacks.get(pair_id, [])[:_MOST_ANSWERS],
                "answers": answers.get(pair_id, [])[:_MOST_ANSWERS],
                "attacked_answers": attacked_answers.get(pair_id, [])[:_MOST_ANSWERS],
                # nothing draws the noise of a published log again
                "command": None if row["noise"] == PUBLISHED else _command(run.url, pair_id),
            }
        )
    return pairs, sql, missing


def _chosen(run_id: str, job: Job, least: int, most: int, count: int) -> str:
    """Robust: where there are classes by their radius, of the mean, then of the vote; then by the smoothed norm."""
    radii = ("coalesce(certified_radius, -1) {0}, ", "coalesce(vote_radius, -1) {0}, ")
    ok = f"FROM certificates WHERE run_id = {quote(run_id)} AND status = 'ok'"
    # one order and its reverse
    keys = "".join(radii if job.zero_shot is not None else ()) + "smooth_norm_lcb {0}, pair_id {0}"
    bad = f"FROM certificates WHERE run_id = {quote(run_id)} AND status = 'quarantined'"
    return (
        f"(SELECT 'least robust' AS shown, {_COLUMNS} {ok} ORDER BY {keys.format('ASC')} LIMIT {least})\n"
        f"UNION ALL (SELECT 'most robust', {_COLUMNS} {ok} ORDER BY {keys.format('DESC')} LIMIT {most})\n"
        f"UNION ALL (SELECT 'quarantined', {_COLUMNS} {bad} ORDER BY pair_id LIMIT {count})"
    )


_ATTACKS = (
    "SELECT pair_id, arg_min(attack, margin) AS attack, subject, norm, budget, objective, bool_or(success) AS success, "
    "arg_min(clean_label, margin) AS clean_label, arg_min(attacked_label, margin) AS attacked_label, "
    "min(cosine_to_clean) AS cosine_to_clean, min(cosine_to_smoothed) AS cosine_to_smoothed, "
    "max(certified_cosine) AS certified_cosine FROM attacks "
    "WHERE run_id = {run} AND pair_id IN ({pairs}) AND status = 'ok' "
    "GROUP BY pair_id, subject, norm, budget, objective ORDER BY pair_id, budget DESC, subject, norm, objective"
)
_ANSWERS = (
    "SELECT pair_id, subject, question, answer, reference_answers[1] AS reference, vote_radius FROM answers "
    "WHERE run_id = {run} AND pair_id IN ({pairs}) AND status = 'ok' ORDER BY pair_id, question_id, subject"
)
_ATTACKED_ANSWERS = (
    "SELECT pair_id, question, subject, attack, norm, budget, clean_answer, answer, changed, "
    "reference_answers[1] AS reference FROM attacked_answers "
    "WHERE run_id = {run} AND pair_id IN ({pairs}) AND status = 'ok' "
    # those that the attack turned come first
    "ORDER BY pair_id, changed DESC, question_id, budget, subject, attack"
)


def _grouped(query: Query, sql: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in query.rows(sql):
        pair_id = row.pop("pair_id")
        found.setdefault(pair_id, []).append({name: cell(value) for name, value in row.items()})
    return found


def _command(url: str, pair_id: str) -> str:
    options = " --" if pair_id.startswith("-") else ""
    return f"smoothcert reproduce{options} {shlex.quote(url)} {shlex.quote(pair_id)}"
