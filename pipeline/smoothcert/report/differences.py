"""Several runs on one page: what each differs in from the first, pair by pair."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from smoothcert.errors import QueryError
from smoothcert.report.figure import Chart, ReportFigure
from smoothcert.sql import Query
from smoothcert.store import RunDirectory
from smoothcert.summary.comparison import ComparedFigure, PairedComparison, compare_runs

_COLUMNS = ("figure", "pairs", "first", "second", "difference", "low", "high", "gained", "lost", "p_value")


def difference_figures(
    query: Query, runs: Sequence[RunDirectory], names: Sequence[str]
) -> Iterator[ReportFigure]:
    """One figure for each run after the first; none for one that shares no pair with it.

    Args:
        query: an open query with all of them.
        runs: the runs.
        names: what the page calls them.

    Raises:
        StoreError: reading failed.
    """
    for number, (other, name) in enumerate(zip(runs[1:], names[1:], strict=True), start=2):
        try:
            found = compare_runs(runs[0], other, query)
        except QueryError:
            continue  # other pairs: the curves stand side by side, and there is no difference to speak of
        told = [each for each in found.figures if each.first or each.second]
        told.sort(key=lambda each: -abs(each.difference or 0.0))
        yield ReportFigure(
            f"difference-{number}",
            "Differences between the runs",
            f"{name} less {names[0]}",
            f"Differences on the {found.both:,} pairs that both have, with 95% intervals (McNemar's exact "
            f"test for shares, "
            "Maurer and Pontil's bound for means); each interval is of its figure alone. "
            + _what_differs(found),
            f"smoothcert compare {shlex.quote(runs[0].url)} {shlex.quote(other.url)} --json",
            _COLUMNS,
            tuple(_row(each) for each in told),
            Chart(
                kind="bars", x="difference", y="figure", low="low", high="high", most=30, x_title="difference",
                scale="difference",
            ),
        )  # fmt: skip


def _row(each: ComparedFigure) -> tuple[str | float | int | None, ...]:
    return tuple(getattr(each, name) for name in _COLUMNS)


def _what_differs(found: PairedComparison) -> str:
    changes = [f"{name} ({old} / {new})" for name, old, new in found.changed[:6]]
    more = len(found.changed) - len(changes)
    if not changes:
        return "Nothing differs between jobs, data, encoders and code."
    return f"What differs: {'; '.join(changes)}{f'; and {more} more' if more > 0 else ''}."
