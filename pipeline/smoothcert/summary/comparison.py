"""Two runs of the same pairs, figure by figure: what changed, by how much, and whether chance alone would do that.

Pairs are matched by ``pair_id``, so both runs must be of the same data. Every pair that has a row in both counts, as in
``sql/measures.py``: a quarantined one is not certified. How a difference and its 95% interval are had is in
``statistics/paired.py``; there are none while a run goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from smoothcert.errors import QueryError, did_you_mean
from smoothcert.sql import Query, asking
from smoothcert.sql.literals import quote
from smoothcert.sql.measures import Measure, measures
from smoothcert.sql.paired import paired_figures
from smoothcert.store import RunDirectory, RunInfo
from smoothcert.store.run_info import changed_fields

_Both = tuple[Measure, Measure]
"""One figure, in the first and in the second run: the same may stand at another place there."""


@dataclass(frozen=True, slots=True)
class ComparedFigure:
    """One figure of two runs.

    Attributes:
        figure: its name.
        kind: what it is a figure of.
        pairs: that it is over.
        first, second: the figure in each run over these pairs; None without pairs.
        difference: second minus first.
        low, high: its 95% interval; None while a run goes on.
        p_value: of a share, of McNemar's exact test; None while a run goes on.
        gained, lost: of a share, pairs that hold it in the second run alone, and in the first alone.
    """

    figure: str
    kind: Literal["share", "mean"]
    pairs: int
    first: float | None
    second: float | None
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    gained: int | None
    lost: int | None


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """Two runs.

    Attributes:
        first, second: their run ids.
        changed: what differs between their jobs, encoders, data and code: name, value of the first, of the second.
        finished: whether both have all their rows.
        both: pairs that have a row in both runs; figures are over these.
        in_one: pairs that have a row in one run only.
        quarantined_in_one: pairs of both that are quarantined in one of them.
        figures: one entry for every figure that both have.
    """

    first: str
    second: str
    changed: tuple[tuple[str, str, str], ...]
    finished: bool
    both: int
    in_one: int
    quarantined_in_one: int
    figures: tuple[ComparedFigure, ...]

    def as_mapping(self) -> Mapping[str, Any]:
        """For ``--json``."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ChangedPair:
    """A pair that holds a claim in one run alone.

    Attributes:
        change: ``gained``: in the second run; ``lost``: in the first.
        pair_id, label, caption: the pair, as the first run has it.
    """

    change: Literal["gained", "lost"]
    pair_id: str
    label: str | None
    caption: str | None


def compare_runs(first: RunDirectory, second: RunDirectory, query: Query | None = None) -> PairedComparison:
    """Compare two runs, as of now.

    Args:
        first: a run.
        second: the run whose figures less the first one's are the differences.
        query: an open query with both, where there is one.

    Raises:
        QueryError: they are one run, or have no pair in common.
        StoreError: reading failed.
    """
    common = _common(first.info, second.info)
    with asking([first, second], query) as query:
        counts = _matching(query, first.run_id, second.run_id)
        if not counts["both"]:
            raise QueryError(
                f"runs '{first.run_id}' and '{second.run_id}' have no pair in common",
                remedy="compare runs of the same data: pairs are matched by pair_id",
            )
        both = f"{quote(first.run_id)}, {quote(second.run_id)}"
        rows = query.rows(f"SELECT finished FROM runs WHERE run_id IN ({both})")
        finished = all(row["finished"] for row in rows)
        asked = [(theirs, ours) for ours, theirs in common.values()]
        found = paired_figures(query, second.run_id, first.run_id, asked)
    figures = [
        ComparedFigure(
            figure=name,
            kind=both[0].kind,
            pairs=each.pairs,
            first=of_both.theirs,
            second=of_both.ours,
            difference=each.difference,
            low=each.low if finished else None,
            high=each.high if finished else None,
            p_value=each.p_value if finished else None,
            gained=each.gained,
            lost=each.lost,
        )
        for (name, both), of_both in zip(common.items(), found, strict=True)
        for each in [of_both.difference]
    ]
    return PairedComparison(
        first.run_id,
        second.run_id,
        tuple(_changed(first.info, second.info)),
        finished,
        **counts,
        figures=tuple(figures),
    )


def changed_pairs(first: RunDirectory, second: RunDirectory, figure: str, at_most: int) -> list[ChangedPair]:
    """Pairs that lost or gained a share's property, lost ones first, at most so many of each, by ``pair_id``.

    Raises:
        QueryError: there is no such share, or the runs are one.
        StoreError: reading failed.
    """
    shares = {
        name: both for name, both in _common(first.info, second.info).items() if both[0].kind == "share"
    }
    if figure not in shares:
        raise QueryError(
            f"the runs have no common share '{figure}'{did_you_mean(figure, list(shares))}",
            remedy=f"use one of: {'; '.join(shares)}",
        )
    a, b = (
        f"(SELECT pair_id, label, caption, {measure.value} AS held FROM certificates "
        f"WHERE run_id = {quote(run.run_id)})"
        for measure, run in zip(shares[figure], (first, second), strict=True)
    )
    found = []
    with Query([first, second]) as query:
        for change, holds in (("lost", "a.held AND NOT b.held"), ("gained", "b.held AND NOT a.held")):
            rows = query.rows(
                f"SELECT pair_id, a.label, a.caption FROM {a} a JOIN {b} b USING (pair_id) WHERE {holds} "
                f"ORDER BY pair_id LIMIT {at_most:d}"
            )
            found += [ChangedPair(change=change, **row) for row in rows]  # type: ignore[arg-type]
    return found


def _common(first: RunInfo, second: RunInfo) -> dict[str, _Both]:
    """What both runs have figures of, by name."""
    theirs = {each.key: each for each in measures(second)}
    return {_name(each): (each, theirs[each.key]) for each in measures(first) if each.key in theirs}


def _name(measure: Measure) -> str:
    """E.g. ``certified_share angular>=0.8@0.25``."""
    cosine = "" if measure.cosine is None else f">={measure.cosine:g}"
    radius = "" if measure.radius is None else f"@{measure.radius:g}"
    what = f"{measure.certificate}{cosine}{radius}"
    parts = (measure.figure, "" if measure.subject == "smoothed" else measure.subject, what)
    return " ".join(part for part in parts if part)


def _matching(query: Query, first: str, second: str) -> dict[str, int]:
    a, b = (
        f"(SELECT pair_id, status = 'ok' AS ok FROM certificates WHERE run_id = {quote(run_id)})"
        for run_id in (first, second)
    )
    (row,) = query.rows(
        "SELECT count(*) FILTER (a.ok IS NOT NULL AND b.ok IS NOT NULL) AS both, "
        "count(*) FILTER (a.ok IS NULL OR b.ok IS NULL) AS in_one, "
        f"count(*) FILTER (a.ok <> b.ok) AS quarantined_in_one FROM {a} a FULL JOIN {b} b USING (pair_id)"
    )
    return dict(row)


def _changed(first: RunInfo, second: RunInfo) -> Iterator[tuple[str, str, str]]:
    """What differs between two runs besides their rows."""
    yield from changed_fields(first.job, second.job)
    for what in ("data_digest", "encoder_digest", "code_version"):
        old, new = getattr(first, what), getattr(second, what)
        if old != new:
            shown = slice(None) if what == "code_version" else slice(16)
            yield what, old[shown], new[shown]
    for library in sorted({*first.libraries, *second.libraries}):
        old, new = (info.libraries.get(library, "not known") for info in (first, second))
        if old != new:
            yield library, old, new
