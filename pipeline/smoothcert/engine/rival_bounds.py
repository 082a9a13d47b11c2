"""Which rival a class or rank certificate rests on, and what follows from it (docs/theory.md T4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smoothcert.certificates import margin_radius, rank_radius
from smoothcert.engine.rivals import Rivals

Array = NDArray[np.float64]

NOT_MEASURED = -1
"""In place of a rival's index: the binding one is none of those that were measured, or there is none."""


@dataclass(frozen=True)
class RivalBounds:
    """What is certified against all rivals of each pair, and what that rests on.

    The binding rival is the one whose radius is the certified one: the k-th smallest, or the first of those that
    cannot be certified.

    Attributes:
        radius: (P,) certified radii in pixels; NaN where none is, infinity with fewer than k rivals.
        smallest_margin: (P,) lower bounds of the smallest margin over all rivals; NaN without one.
        rival: (P,) index of the binding rival, or ``NOT_MEASURED``.
        margin: (P,) lower bound of its margin; NaN where that was not measured.
        alignment: (P,) inner product of its direction w with the pilot direction, of those not measured the largest;
            NaN with fewer than k rivals.
    """

    radius: Array
    smallest_margin: Array
    rival: NDArray[np.int64]
    margin: Array
    alignment: Array


def bound_rivals(
    rivals: Sequence[Rivals | None], margins: Array, pilots: Array, sigma: float, k: int
) -> RivalBounds:
    """Certified radii and margins of a batch.

    Args:
        rivals: (P,) competitors of each pair's text; None without.
        margins: (P, places) lower bounds of <m(x), -w> of each pair's measured rivals in their order, in [-1, 1];
            further places are not read.
        pilots: (P,) lower bounds of <m(x), v> for the pilot direction v, at the same level.
        sigma: noise standard deviation.
        k: rank that is certified; 1 is "nearest".

    Returns:
        One result per pair; a radius fails with at most k times the summed level of a margin and a pilot bound.
    """
    nothing = np.full(len(rivals), np.nan)
    unknown = np.full(len(rivals), NOT_MEASURED, dtype=np.int64)
    found = RivalBounds(nothing, nothing.copy(), unknown, nothing.copy(), nothing.copy())
    groups = [(i, group) for i, group in enumerate(rivals) if group is not None]
    if not groups:
        return found
    # one call for the measured rivals of all pairs, one for the worst of each pair's others
    sizes = [len(group.measured) for _, group in groups]
    mine = pilots[[i for i, _ in groups]]
    measured = margin_radius(
        np.concatenate([margins[i, :size] for (i, _), size in zip(groups, sizes, strict=True)]),
        np.repeat(mine, sizes),
        np.concatenate([group.alignment for _, group in groups]),
        sigma,
    )
    worst = np.array(
        [-1.0 if group.others_alignment is None else group.others_alignment for _, group in groups]
    )
    others = margin_radius(None, mine, worst, sigma)
    for (i, group), each, other in zip(
        groups, np.split(measured, np.cumsum(sizes)[:-1]), others, strict=True
    ):
        size = len(each)
        lowest = list(margins[i, :size])
        if group.others_alignment is not None:
            each = np.append(each, [other] * k)
            lowest.append(margin_from_norm(float(pilots[i]), group.others_alignment))
        found.radius[i] = rank_radius(each, k)
        found.smallest_margin[i] = min(lowest, default=np.nan)  # without a rival there is no margin
        if len(each) < k:
            continue
        place = int(np.argsort(np.where(np.isnan(each), -1.0, each), kind="stable")[k - 1])
        if place < size:
            found.rival[i] = group.measured[place]
            found.margin[i] = margins[i, place]
            found.alignment[i] = group.alignment[place]
        elif group.others_alignment is not None:
            found.alignment[i] = group.others_alignment
    return found


def margin_from_norm(norm: float, alignment: float) -> float:
    """Lower bound of <m, -w> from <m, v> >= norm, |m| <= 1 and <v, w> = alignment alone.

    m = cos(a) v + (orthogonal part of length at most sin(a)), cos(a) >= norm; the margin
    -alignment cos(a) - sqrt(1 - alignment^2) sin(a) is smallest at the largest angle that is allowed while it falls.
    """
    largest = float(np.arccos(np.clip(norm, -1.0, 1.0)))
    angle_to_away = float(np.arccos(np.clip(-alignment, -1.0, 1.0)))
    return float(np.cos(min(np.pi, largest + angle_to_away)) - 1e-12)
