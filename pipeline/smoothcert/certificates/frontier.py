"""What the shifted noise can do at one radius: the frontier of docs/theory.md T3, as sound supporting lines.

Put m(x) at (t, -s) in the plane of w = (0,1) and e = (1,0), with t >= 0. For a shift rho and a level c, the
statement "<m(x+delta), w> <= c for every ||delta|| <= r" follows from

    a t - b s' >= E||L w + (a, b)|| - c          with s' = -<m(x), w>, i.e. <lambda, m(x)> >= H

for *any* lambda = (a, b) (weak duality). The extremal encoder u(z) = (L w + lambda)/||L w + lambda|| shows
which lambda are best: those with E[L u]_2 = c. Sweeping a and solving for b lists them; each is kept with its
rigorous H, so an entry that was solved badly only makes the frontier looser there, never false.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from smoothcert.certificates.domain import FloatArray
from smoothcert.certificates.likelihood import LikelihoodRatio

SMALLEST_SHIFT = 1e-6
"""Shifts between 0 and this one are rounded up to it: sound, and far below any radius of use."""
LARGEST_SHIFT = 6.0
"""Larger shifts count as vacuous: they would need a smooth norm above 1 - 2e-9, i.e. some 10^9 draws."""

_LINES, _LINES_FAR, _CELLS = 2500, 8000, 4000
"""Lines at shifts up to 2, where few are enough, and beyond; cells of the grid."""
_SOLVED_LINES, _SOLVED_CELLS = 192, 320
_FARTHEST, _FLAT_LINES = 1e3, 400
"""Where the sweep of a ends at the earliest (a normal 1e-3 from flat), and lines from its usual end to there."""
_FEW = 24


@dataclass(frozen=True, slots=True)
class Frontier:
    """Supporting lines at one shift and level, from the vacuous end to the smooth norm 1.

    The points that the lines leave open form a convex polygon; each line is an edge of it.

    Attributes:
        theta: shape (K,), falling: the line's normal is lambda/||lambda|| = (cos theta, -sin theta).
        cosine: shape (K,): cos theta.
        sine: shape (K,): sin theta.
        needed: shape (K,): <m(x), lambda/||lambda||> >= needed proves the statement.
        length: shape (K,): ||lambda||.
        corner: shape (K-1,), growing: the distance from 0 at which line k hands over to line k+1.
    """

    theta: FloatArray
    cosine: FloatArray
    sine: FloatArray
    needed: FloatArray
    length: FloatArray
    corner: FloatArray


@lru_cache(maxsize=256)
def frontier(rho: float, level: float = 0.0) -> Frontier:
    """Build (once) the frontier for a shift in [SMALLEST_SHIFT, LARGEST_SHIFT] and a level in (-1, 1)."""
    a, b = _spread_lines(rho, level)
    fine = LikelihoodRatio(rho, cells=_CELLS, reach=8.5)
    pieces = [slice(i, i + 64) for i in range(0, a.size, 64)]
    needed = np.concatenate([fine.expected_norm(a[rows], b[rows]) for rows in pieces]) - level
    length = np.hypot(a, b)
    # Rounding of the subtraction, the length and the division, on the safe side.
    needed = needed / length
    needed += 1e-15 * (np.abs(needed) + abs(level) / length)
    theta = np.arctan2(-b, a)
    return Frontier(theta, a / length, -b / length, needed, length, _corners(theta, needed))


def _spread_lines(rho: float, level: float) -> tuple[FloatArray, FloatArray]:
    """Multipliers spread over the frontier: half of them evenly in theta, half evenly in log a.

    A polygon of tangents overshoots by the square of the turn between them. At large shifts, where the norm
    hardly changes along the frontier, that is what limits the bound; at small ones the ends need their share.
    """
    low, high = range_of_a(rho)
    log_a = np.linspace(math.log(low), math.log(high), _SOLVED_LINES)
    ratio = LikelihoodRatio(rho, cells=_SOLVED_CELLS, reach=7.0)
    b = solve_b(ratio, np.exp(log_a), level)
    theta = np.minimum.accumulate(np.arctan2(-b, np.exp(log_a)))
    progress = (log_a - log_a[0]) / np.ptp(log_a) + (theta[0] - theta) / np.ptp(theta)
    places = np.interp(np.linspace(0.0, 2.0, _LINES if rho <= 2.0 else _LINES_FAR), progress, log_a)
    a, b = np.exp(places), _spline(log_a, b, places)
    if high >= _FARTHEST:
        return a, b
    # At small shifts the sweep ends at a steep normal: a smooth norm near 1 leaves nothing for T3, but a direction
    # that is given may be flatter.
    flatter = np.geomspace(high, _FARTHEST, _FLAT_LINES + 1)[1:]
    return np.concatenate([a, flatter]), np.concatenate([b, solve_b(ratio, flatter, level)])


def _spline(x: FloatArray, y: FloatArray, places: FloatArray) -> FloatArray:
    """The cubic spline through (x, y), at the places."""
    # late: it takes longer to import than most commands that only look at certificates have to do
    from scipy.interpolate import CubicSpline

    return np.asarray(CubicSpline(x, y)(places))


def _corners(theta: FloatArray, needed: FloatArray) -> FloatArray:
    """Distances from 0 of the points where neighbouring lines cross, made to grow where rounding disturbs."""
    turn = np.diff(theta)
    beside = (needed[1:] - needed[:-1] * np.cos(turn)) / np.where(turn == 0.0, np.nan, np.sin(turn))
    distance = np.hypot(needed[:-1], beside)
    return np.asarray(np.maximum.accumulate(np.where(np.isnan(distance), 0.0, distance)))


def range_of_a(rho: float) -> tuple[float, float]:
    """Where to sweep a: from a smooth norm near the vacuous end to one near 1."""
    # L spreads over about rho near its tilted median exp(rho^2/2), and b reaches -exp(rho^2).
    low = 1e-5 * min(rho, 1.0) * math.exp(min(rho, 1.0) * rho / 2)
    return low, 1e3 * rho * math.exp(rho**2)


def solve_b(ratio: LikelihoodRatio, a: FloatArray, level: float, precision: float = 1e-5) -> FloatArray:
    """Solve E[L u]_2 = level for b at every a, which must increase; the left side grows with b.

    Safeguarded Newton steps, started from a few solutions spread over a. Precision is not needed for soundness,
    and only to second order for tightness.
    """
    nodes, weights = ratio.nodes, ratio.weights * ratio.nodes
    target = level * weights.sum()
    # The root lies between the points where even the extreme nodes have the wanted sign.
    beyond = 1.01 * a * abs(level) / np.sqrt(1 - level**2)
    low, high = -np.maximum(1.01 * nodes[-1], beyond) - beyond, np.maximum(beyond, 0.0)
    if a.size > 2 * _FEW:
        few = np.linspace(0, a.size - 1, _FEW).astype(np.intp)
        b = np.clip(_spline(np.log(a[few]), solve_b(ratio, a[few], level, precision), np.log(a)), low, high)
    else:
        b = np.clip(-(weights @ nodes) / weights.sum() + 0 * a, low, high)
    rows = np.arange(a.size)
    for _ in range(80):
        here, width = b[rows], a[rows]
        second = nodes + here[:, None]
        inverse = 1.0 / np.sqrt(width[:, None] ** 2 + second**2)
        u2 = second * inverse
        value = u2 @ weights - target
        slope = ((1.0 - u2**2) * inverse) @ weights
        low[rows], high[rows] = np.where(value < 0, here, low[rows]), np.where(value < 0, high[rows], here)
        newton = here - value / np.maximum(slope, 1e-300)
        inside = (newton > low[rows]) & (newton < high[rows])
        b[rows] = np.where(inside, newton, _between(low[rows], high[rows]))
        rows = rows[np.abs(b[rows] - here) > precision * width]
        if rows.size == 0:
            break
    return np.asarray(b)


def _between(low: FloatArray, high: FloatArray) -> FloatArray:
    # Brackets span many decades of negative numbers: halve the exponent there.
    both_negative = high < 0
    geometric = -np.sqrt(np.where(both_negative, low * high, 0.0))
    return np.asarray(np.where(both_negative, geometric, (low + high) / 2))


def touching_point(ratio: LikelihoodRatio, a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(t, s') = (E u_1, -E u_2) of the extremal encoder: where the line of (a, b) touches the frontier."""
    second = ratio.nodes + b[:, None]
    inverse = 1.0 / np.sqrt(a[:, None] ** 2 + second**2)
    return a * (inverse @ ratio.weights), -((second * inverse) @ ratio.weights)
