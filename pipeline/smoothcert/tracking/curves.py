"""Curves as pictures: what is certified against the radius of the attack. Call inside ``quiet_mlflow``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from smoothcert.catalogue.certificates import CATALOGUE
from smoothcert.summary.shares import Mean, Share
from smoothcert.summary.summary import AtRadius, Summary

Points = Sequence[tuple[float, float, float | None, float | None]]
"""(radius, value, low, high) by growing radius."""


def curves(summary: Summary) -> dict[str, dict[str, Points]]:
    """The curves of a run: title of a picture, then name of a curve, its points. Empty without radii."""
    shares: dict[str, Points] = {}
    cosines: dict[str, Points] = {}
    for each in CATALOGUE:
        if not each.leading:
            continue
        if each.radius is not None:
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

    figure = Figure(figsize=(6.4 * len(panels), 4.4), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for panel, (what, lines) in zip(axes, panels.items(), strict=True):
        for name, points in lines.items():
            radii = [point[0] for point in points]
            (line,) = panel.plot(radii, [point[1] for point in points], marker="o", label=name)
            known = [point for point in points if point[2] is not None and point[3] is not None]
            panel.fill_between(
                [point[0] for point in known],
                [point[2] for point in known],
                [point[3] for point in known],
                color=line.get_color(),
                alpha=0.15,
                linewidth=0,
            )
        panel.set_ylim(-0.02, 1.02)
        panel.set_xlabel("l2 radius of the attack, [0,1] pixels")
        panel.set_ylabel(what)
        panel.grid(alpha=0.3)
        panel.legend()
    return figure


def _points(radii: Sequence[AtRadius], take: Any) -> Points:
    return tuple(_found(radii, take))


def _found(radii: Sequence[AtRadius], take: Any) -> Iterator[tuple[float, float, float | None, float | None]]:
    for at in radii:
        figure: Share | Mean | None = take(at)
        value = figure.share if isinstance(figure, Share) else figure.mean if figure is not None else None
        if figure is not None and value is not None:
            yield at.radius, value, figure.low, figure.high
