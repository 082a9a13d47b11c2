"""Means of the metrics of answers, by subject and kind of question: those of rows, and those of a whole set.

Without intervals: questions about one image are not independent draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from smoothcert.catalogue.answer_metrics import BY_ROW
from smoothcert.sql import Query
from smoothcert.sql.literals import quote
from smoothcert.summary.shares import Mean

if TYPE_CHECKING:
    import pyarrow as pa

    from smoothcert.answerers.cider import Captioned


def answer_means(query: Query, run_id: str) -> dict[str, Mean]:
    """Figures by name: ``answers_<metric>/<subject>``, and ``answers_<metric>/<subject>_<kind>``.

    Args:
        query: an open query.
        run_id: the run.
    """
    chosen = ", ".join(
        f"count({each.sql})::BIGINT AS {name}_count, avg({each.sql})::DOUBLE AS {name}"
        for name, each in BY_ROW.items()
    )
    rows = query.rows(
        f"SELECT subject, kind, {chosen} FROM answers WHERE run_id = {quote(run_id)} AND status = 'ok' "
        "GROUP BY GROUPING SETS ((subject), (subject, kind)) "
        "HAVING grouping(kind) = 1 OR kind IS NOT NULL ORDER BY subject, kind NULLS FIRST"
    )
    found = {
        _name(metric, row): Mean(row[f"{metric}_count"], row[metric], None, None)
        for metric in BY_ROW
        for row in rows
        if row[f"{metric}_count"]
    }
    for subject in dict.fromkeys(row["subject"] for row in rows):
        found |= _ciders(query, run_id, [row for row in rows if row["subject"] == subject])
    return found


def _ciders(query: Query, run_id: str, rows: list[dict[str, Any]]) -> dict[str, Mean]:
    """CIDEr of one subject: by kind of question, whose words weigh each other; of all where they are of one kind."""
    found: dict[str, Mean] = {}
    every, *kinds = rows
    for row in kinds or [every]:
        if row["rouge_l_count"] > 1:
            mean, count = _cider(query, run_id, row["subject"], row["kind"])
            if mean is not None:
                found[_name("cider", row)] = Mean(count, mean, None, None)
                if row["rouge_l_count"] == every["rouge_l_count"]:
                    found[_name("cider", every)] = Mean(count, mean, None, None)
    return found


def _name(metric: str, row: dict[str, Any]) -> str:
    return f"answers_{metric}/{row['subject']}" + (f"_{row['kind']}" if row["kind"] is not None else "")


def _cider(query: Query, run_id: str, subject: str, kind: str | None) -> tuple[float | None, int]:
    from smoothcert.answerers.cider import cider

    table = query.sql(
        # of votes the words that were said, as in the metrics of rows; their classes are normalised
        "SELECT coalesce(wording, answer) AS answer, reference_answers FROM answers "
        f"WHERE run_id = {quote(run_id)} AND status = 'ok' AND subject = {quote(subject)} AND rouge_l IS NOT NULL"
        + ("" if kind is None else f" AND kind = {quote(kind)}")
    )
    return cider(lambda: _captioned(table))


def _captioned(table: pa.Table) -> Iterator[Captioned]:
    for batch in table.to_batches(max_chunksize=1024):
        yield from ((row["answer"], row["reference_answers"]) for row in batch.to_pylist())
