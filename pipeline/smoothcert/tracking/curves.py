"""Curves as pictures: what is certified against the radius of the attack. Call inside ``quiet_mlflow``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from smoothcert.catalogue.certificates import CATALOGUE
from smoothcert.summary.shares import Mean, Share
from smoothcert.summary.summary import AtRadius, Summary

_ACROSS = 2
"""Panels beside each other; more cannot be read."""
_SHADED = 2
"""Curves whose intervals are shaded; those of more are drawn as lines, which do not cover what is behind them."""
_WIDE, _HIGH = 6.4, 4.4
"""Inches of a panel, with what stands around it."""
_TITLE, _LEGEND_LINE = 0.4, 0.25
"""Inches of the title above all panels, and of a line of the legend below them."""
_MOST_IN_LINE, _LETTER, _SAMPLE = 5, 0.09, 0.8
"""Names in a line of the legend, and inches that it takes for a letter and for a piece of the curve."""
_MARKERS, _DASHES = "osD^v", ("-", "--", "-.", ":")
Points = Sequence[tuple[float, float, float | None, float | None]]
"""(radius, value, low, high) by growing radius."""


def curves(summary: Summary) -> dict[str, dict[str, Points]]:
    """The curves of a run: title of a picture, then name of a curve, its points. Empty without radii."""
    shares: dict[str, Points] = {}
    cosines: dict[str, Points] = {}
    for each in CATALOGUE:
        if not each.leading:
            continue
        if each.figure:
            for name in (each.right_figure, each.figure):
                points = _points(summary.radii, lambda at, name=name: at.unchanged.get(name))
                if points:
                    shares[name.replace("_", " ")] = points
                    break
        elif each.quantity.cosine:
            found = _points(summary.radii, lambda at, name=each.name: at.cosines[name].mean)
            if found:
                cosines[f"to the {each.quantity.name} feature"] = found
    titles = {"share of pairs": shares, "mean certified cosine": cosines}
    return {title: lines for title, lines in titles.items() if lines}


def picture(panels: Mapping[str, Mapping[str, Points]], title: str) -> Any:
    """A matplotlib figure with one panel a title, its intervals shaded."""
    from matplotlib.figure import Figure

    columns = min(len(panels), _ACROSS)
    rows = -(-len(panels) // columns)
    shared = len({tuple(lines) for lines in panels.values()}) == 1
    names = list(next(iter(panels.values()))) if shared else []
    width = _WIDE * columns
    in_line = int(width / (_LETTER * max(map(len, names), default=0) + _SAMPLE))
    in_line = max(1, min(_MOST_IN_LINE, in_line))
    below = 0.1 + _LEGEND_LINE * -(-len(names) // in_line)
    height = _HIGH * rows + _TITLE + below
    figure = Figure(figsize=(width, height))
    figure.suptitle(title, y=1.0 - 0.12 / height, verticalalignment="top")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    _place(figure, width, height, below)
    for panel in axes[len(panels) :]:
        panel.remove()
    for panel, (what, lines) in zip(axes[: len(panels)], panels.items(), strict=True):
        for number, (name, points) in enumerate(lines.items()):
            _draw(panel, name, points, number, shaded=len(lines) <= _SHADED)
        panel.set_ylim(-0.02, 1.02)
        panel.set_xlabel("l2 radius of the attack, [0,1] pixels")
        panel.set_ylabel(what)
        panel.grid(alpha=0.3)
    if shared:
        known = axes[0].get_legend_handles_labels()
        figure.legend(*known, loc="lower center", ncols=in_line)
    else:
        for panel in axes[: len(panels)]:
            panel.legend()
    return figure


def _place(figure: Any, width: float, height: float, below: float) -> None:
    """Set margins by hand, in inches: a layout that finds them draws everything twice."""
    left, right, top, bottom = 0.75, 0.2, 0.1, 0.6
    figure.subplots_adjust(
        left=left / width,
        right=1.0 - right / width,
        bottom=(below + bottom) / height,
        top=1.0 - (_TITLE + top) / height,
        wspace=(left + right) / (_WIDE - left - right),
        hspace=(top + bottom) / (_HIGH - top - bottom),
    )


def _draw(panel: Any, name: str, points: Points, number: int, *, shaded: bool) -> None:
    """One curve with its intervals; later ones are thinner and broken, so that those that are equal are all seen."""
    marker, dash = _MARKERS[number % len(_MARKERS)], _DASHES[number % len(_DASHES)]
    width, size = max(1.2, 4.0 - 0.9 * number), max(4.0, 9.0 - 1.5 * number)
    radii, values = [point[0] for point in points], [point[1] for point in points]
    (line,) = panel.plot(
        radii, values, marker=marker, markersize=size, linestyle=dash, linewidth=width, label=name
    )
    known = [point for point in points if point[2] is not None and point[3] is not None]
    places, lows, highs = ([point[at] for point in known] for at in (0, 2, 3))
    if shaded:
        panel.fill_between(places, lows, highs, color=line.get_color(), alpha=0.15, linewidth=0)
    else:
        panel.vlines(places, lows, highs, color=line.get_color(), alpha=0.4, linewidth=max(1.0, 5.0 - number))


def _points(radii: Sequence[AtRadius], take: Any) -> Points:
    return tuple(_found(radii, take))


def _found(radii: Sequence[AtRadius], take: Any) -> Iterator[tuple[float, float, float | None, float | None]]:
    for at in radii:
        figure: Share | Mean | None = take(at)
        value = figure.share if isinstance(figure, Share) else figure.mean if figure is not None else None
        if figure is not None and value is not None:
            yield at.radius, value, figure.low, figure.high
