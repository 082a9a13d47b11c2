"""Two runs in one query, pair by pair: what differs in their figures, with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smoothcert.sql.literals import quote
from smoothcert.sql.measures import Measure
from smoothcert.sql.query import Query
from smoothcert.statistics import PairedDifference, mean_difference, share_difference


def paired_differences(
    query: Query, run_id: str, baseline_id: str, measures: Sequence[tuple[Measure, Measure]]
) -> list[PairedDifference]:
    """Figures of a run less those of a baseline, over the pairs that both have, in one pass over their rows.

    Args:
        query: with both runs.
        run_id: the run.
        baseline_id: the baseline; it may be the same run.
        measures: for each difference the run's measure and the baseline's, of one kind and of the table certificates.

    Raises:
        ValueError: a share against a mean.
    """
    for ours, theirs in measures:
        if ours.kind != theirs.kind:
            raise ValueError(f"'{ours.figure}' is a {ours.kind}, '{theirs.figure}' a {theirs.kind}")
    both = _side_by_side(run_id, baseline_id, measures)
    return differences(query, both, [ours.kind for ours, _ in measures])


def paired_means(
    query: Query, run_id: str, baseline_id: str, measures: Sequence[tuple[Measure, Measure]]
) -> list[tuple[float | None, float | None]]:
    """The figures themselves that ``paired_differences`` compares, of the run and of the baseline."""
    columns = []
    for i in range(len(measures)):
        both = f"FILTER (a{i} IS NOT NULL AND b{i} IS NOT NULL)"
        columns.append(f"[avg(a{i}::DOUBLE) {both}, avg(b{i}::DOUBLE) {both}] AS d{i}")
    if not columns:
        return []
    (row,) = query.sql(
        f"SELECT {', '.join(columns)} FROM {_side_by_side(run_id, baseline_id, measures)}"
    ).to_pylist()
    return [(row[f"d{i}"][0], row[f"d{i}"][1]) for i in range(len(measures))]


def differences(query: Query, both: str, kinds: Sequence[str]) -> list[PairedDifference]:
    """Differences over rows that stand side by side.

    Args:
        query: what both are from.
        both: SQL behind FROM: one row a pair, with ``pair_id`` and columns ``a0, b0, a1, b1, ...``; where one of a
            difference is NULL, it leaves the pair out.
        kinds: of each difference, ``share`` (columns true or false) or ``mean`` (numbers in [0, 1]).
    """
    if not kinds:
        return []
    columns = ", ".join(f"{sql} AS d{i}" for i, kind in enumerate(kinds) for sql in [_aggregate(kind, i)])
    (row,) = query.sql(f"SELECT {columns} FROM {both}").to_pylist()
    return [_difference(kind, row[f"d{i}"]) for i, kind in enumerate(kinds)]


def _side_by_side(run_id: str, baseline_id: str, measures: Sequence[tuple[Measure, Measure]]) -> str:
    return (
        f"({_values([ours for ours, _ in measures], 'a')} WHERE run_id = {quote(run_id)}) "
        f"JOIN ({_values([theirs for _, theirs in measures], 'b')} WHERE run_id = {quote(baseline_id)}) "
        "USING (pair_id)"
    )


def _values(measures: Sequence[Measure], letter: str) -> str:
    columns = "".join(f", {each.value} AS {letter}{i}" for i, each in enumerate(measures))
    return f"SELECT pair_id{columns} FROM certificates"


def _aggregate(kind: str, i: int) -> str:
    if kind == "mean":
        # in an order that was fixed beforehand
        return f"list(a{i} - b{i} ORDER BY pair_id) FILTER (a{i} IS NOT NULL AND b{i} IS NOT NULL)"
    gained, lost = f"a{i} AND NOT b{i}", f"b{i} AND NOT a{i}"
    return (
        f"[coalesce(count_if({gained}), 0), coalesce(count_if({lost}), 0), "
        f"count(*) FILTER (a{i} IS NOT NULL AND b{i} IS NOT NULL)]::BIGINT[]"
    )


def _difference(kind: str, found: list[float] | None) -> PairedDifference:
    if kind == "mean":
        return mean_difference(np.asarray(found or [], dtype=np.float64))
    gained, lost, pairs = (int(count) for count in found or (0, 0, 0))
    return share_difference(gained, lost, pairs)
