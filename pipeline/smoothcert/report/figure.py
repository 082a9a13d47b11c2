"""A figure of the page: one statement of SQL, the rows that it gave, and how they are drawn."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from smoothcert.sql import Query

Cell = str | float | int | bool | None
LONGEST_TEXT = 300
"""Characters of one text on the page; the rest is said to be there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """How a figure is drawn; fields name columns of its rows, unless they are titles.

    Attributes:
        kind: ``curve`` (y against x), ``columns`` (counts y at x), or ``bars`` (one line a y, its x with interval).
        x: across.
        y: upwards.
        x_title: of the axis.
        y_title: of the axis.
        scale: of the values, which are y, or x of bars: ``share`` (0 to 1, in percent), ``near`` (a share, the axis no
            longer than needed), ``cosine``, ``score`` (0 to 1, as a number), ``count``, ``difference`` (about zero),
            ``log``.
        low: lower end of the value's interval.
        high: upper end.
        series: what tells lines apart, beside the run.
        panel: a choice above the chart.
        panel_title: what is chosen there.
        markers: whether points are marked.
        categories: whether x are names and no numbers.
        dashed: the curve that others are compared with: dashed and without points, so that it hides none.
        most: rows that are drawn at most.
    """

    kind: Literal["curve", "columns", "bars"]
    x: str
    y: str
    x_title: str
    y_title: str = ""
    scale: Literal["share", "near", "cosine", "score", "count", "difference", "log"]
    low: str | None = None
    high: str | None = None
    series: tuple[str, ...] = ()
    panel: str | None = None
    panel_title: str = ""
    markers: bool = True
    categories: bool = False
    dashed: str | None = None
    most: int = 40


@dataclass(frozen=True, slots=True)
class ReportFigure:
    """One figure, whose numbers a reader can have again.

    Attributes:
        key: short name, unique on the page; also of its CSV file.
        section: heading under which it stands.
        title: what it shows.
        note: how it is to be read.
        source: the SQL, or where it is no SQL the command, that gives these rows again.
        columns: names.
        rows: the cells.
        chart: how it is drawn; None for a table.
    """

    key: str
    section: str
    title: str
    note: str
    source: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    chart: Chart | None = None

    def as_mapping(self) -> dict[str, Any]:
        """For JSON."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return fields | {"chart": asdict(self.chart) if self.chart else None}


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureQuery:
    """A figure before it is asked for: as ``ReportFigure``, with SQL in place of rows."""

    key: str
    section: str
    title: str
    note: str
    sql: str
    chart: Chart | None = None

    def ask(self, query: Query) -> ReportFigure | None:
        """The figure; None where there are no rows.

        Raises:
            StoreError: reading failed.
        """
        rows = query.rows(self.sql)
        if not rows:
            return None
        return ReportFigure(
            self.key,
            self.section,
            self.title,
            self.note,
            self.sql,
            tuple(rows[0]),
            tuple(tuple(cell(value) for value in row.values()) for row in rows),
            self.chart,
        )


def cell(value: Any) -> Cell:
    """A value as JSON has it: long texts cut, times as ISO 8601, what is not a finite number as text."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    return shorten(str(value))


def shorten(text: str, longest: int = LONGEST_TEXT) -> str:
    """A text of at most ``longest`` characters, which says how many there were."""
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text):,} characters)"
