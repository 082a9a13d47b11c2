"""Two runs in one query, pair by pair: what differs in their figures, with intervals.

DuckDB says what each pair has, and the counting is done here: as aggregates, hundreds of figures in one statement would
take it many seconds to plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from smoothcert.sql.literals import quote
from smoothcert.sql.measures import Measure
from smoothcert.sql.query import Query
from smoothcert.statistics import PairedDifference, mean_difference, share_difference

_MOST_BYTES = 200_000_000
"""About what the values of pairs may take at once; figures beyond that are read in a further pass over the rows."""
_BYTES = {"share": 2, "mean": 18}
"""Of one pair and figure, in both runs."""


@dataclass(frozen=True, slots=True)
class PairedFigure:
    """One figure of a run and of a baseline, over the pairs that have it in both.

    Attributes:
        ours, theirs: the share or mean of the run and of the baseline; None without pairs.
        difference: the first less the second.
    """

    ours: float | None
    theirs: float | None
    difference: PairedDifference


def paired_figures(
    query: Query, run_id: str, baseline_id: str, measures: Sequence[tuple[Measure, Measure]]
) -> list[PairedFigure]:
    """Figures of a run beside those of a baseline, over the pairs that both have.

    Args:
        query: with both runs.
        run_id: the run.
        baseline_id: the baseline; it may be the same run.
        measures: for each figure the run's measure and the baseline's, of one kind and of the table certificates.

    Raises:
        ValueError: a share against a mean.
    """
    for ours, theirs in measures:
        if ours.kind != theirs.kind:
            raise ValueError(f"'{ours.figure}' is a {ours.kind}, '{theirs.figure}' a {theirs.kind}")
    both = (
        f"({_values([ours for ours, _ in measures], 'a')} WHERE run_id = {quote(run_id)}) "
        f"JOIN ({_values([theirs for _, theirs in measures], 'b')} WHERE run_id = {quote(baseline_id)}) "
        "USING (pair_id)"
    )
    return compare_columns(query, both, [ours.kind for ours, _ in measures])


def compare_columns(query: Query, both: str, kinds: Sequence[str]) -> list[PairedFigure]:
    """Figures over rows that stand side by side.

    Args:
        query: what both are from.
        both: SQL behind FROM: one row a pair, with ``pair_id`` and columns ``a0, b0, a1, b1, ...``; where one of a
            figure is NULL, it leaves the pair out.
        kinds: of each figure, ``share`` (columns true or false) or ``mean`` (numbers in [0, 1]).
    """
    if not kinds:
        return []
    (row,) = query.rows("SELECT max(committed_pairs) AS pairs FROM runs")
    found = []
    for block in _blocks(kinds, row["pairs"]):
        columns = ", ".join(
            f"{letter}{i}{'::DOUBLE' if kinds[i] == 'mean' else ''} AS {letter}{i}"
            for i in block
            for letter in "ab"
        )
        # an order that was fixed beforehand
        table = query.sql(f"SELECT {columns} FROM {both} ORDER BY pair_id")
        found += [_figure(kinds[i], table[f"a{i}"], table[f"b{i}"]) for i in block]
    return found


def _blocks(kinds: Sequence[str], pairs: int) -> Iterator[list[int]]:
    """Positions of figures whose values are held at once."""
    block: list[int] = []
    held = 0
    for i, kind in enumerate(kinds):
        size = _BYTES[kind] * pairs
        if block and held + size > _MOST_BYTES:
            yield block
            block, held = [], 0
        block.append(i)
        held += size
    yield block


def _values(measures: Sequence[Measure], letter: str) -> str:
    columns = "".join(f", {each.value} AS {letter}{i}" for i, each in enumerate(measures))
    return f"SELECT pair_id{columns} FROM certificates"


def _figure(kind: str, ours: pa.ChunkedArray, theirs: pa.ChunkedArray) -> PairedFigure:
    known = pc.and_(pc.is_valid(ours), pc.is_valid(theirs))
    ours, theirs = ours.filter(known), theirs.filter(known)
    means = (pc.mean(ours).as_py(), pc.mean(theirs).as_py())
    if kind == "mean":
        return PairedFigure(*means, mean_difference(pc.subtract(ours, theirs).to_numpy()))
    gained, lost = (_count(pc.and_not(*sides)) for sides in ((ours, theirs), (theirs, ours)))
    return PairedFigure(*means, share_difference(gained, lost, len(ours)))


def _count(column: pa.ChunkedArray) -> int:
    return int(pc.sum(column).as_py() or 0)
