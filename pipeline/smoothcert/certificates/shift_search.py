"""The largest shift that fixed multipliers prove (docs/theory.md T3, T4), and Newton steps for them.

With lambda = (a, b) fixed, E||L w + lambda|| grows with the shift, because L grows in convex order. So the
largest shift at which its rigorous bound stays within the budget <lambda, m(x)> proves every smaller one as
well; it is found by a bracketed search whose lower end is always verified. Newton steps on lambda only
tighten what is then proved.
"""

from __future__ import annotations

import numpy as np

from smoothcert.certificates.domain import FloatArray
from smoothcert.certificates.frontier import LARGEST_SHIFT, SMALLEST_SHIFT
from smoothcert.certificates.likelihood import LikelihoodRatio

ROWS_AT_ONCE = 32
"""Rows worked on at once: their grids stay in the cache."""
CELLS, REACH = 448, 6.5
"""Grid of one row; the radius is looser than the exact one by some 3e-5 of itself."""
_PRECISION = 1e-6


def largest_shift(a: FloatArray, b: FloatArray, budget: FloatArray, guess: FloatArray) -> FloatArray:
    """Largest shift found, and verified, with E||L w + (a, b)|| <= budget; rows (n,); 0 where there is none.

    The expectation grows with the shift (L grows in convex order), so every smaller shift is proved too.
    """
    result = np.zeros(budget.shape)
    for start in range(0, budget.size, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        result[rows] = _search_shift(a[rows], b[rows], budget[rows], guess[rows])
    return result


def _search_shift(a: FloatArray, b: FloatArray, budget: FloatArray, guess: FloatArray) -> FloatArray:
    """Secant steps inside a bracket, all rows side by side; the lower end is always a verified one."""
    low, high = np.zeros(budget.shape), np.full(budget.shape, np.inf)
    # Without a shift the expectation is ||w + lambda||; with it, it grows about as the square of the shift.
    at_zero = np.hypot(a, 1.0 + b) - budget
    point = np.clip(guess, SMALLEST_SHIFT, LARGEST_SHIFT)
    last_point, last_excess = np.zeros(budget.shape), at_zero.copy()
    rows = np.flatnonzero(at_zero < 0.0)
    for step in range(80):
        if rows.size == 0:
            break
        here = point[rows]
        excess = _expected_norm(here, a[rows], b[rows]) - budget[rows]
        proved = excess <= 0.0
        low[rows[proved]], high[rows[~proved]] = here[proved], here[~proved]
        slope = (excess - last_excess[rows]) / np.where(
            here == last_point[rows], np.nan, here - last_point[rows]
        )
        if step == 0:
            slope *= 2.0
        last_point[rows], last_excess[rows] = here, excess
        ahead = -excess / np.where(slope > 0.0, slope, np.nan)
        near = proved & ((np.abs(ahead) <= _PRECISION * here) | (here >= LARGEST_SHIFT)) & (step > 0)
        near |= ~proved & (here <= SMALLEST_SHIFT)
        # Aim a little below the root, so that the last point is a verified one.
        goal = np.minimum(here + ahead - 0.3 * _PRECISION * here, LARGEST_SHIFT)
        inside = (goal > low[rows]) & (goal < high[rows]) & (step < 20)
        halfway = np.where(np.isinf(high[rows]), 2.0 * here, (low[rows] + high[rows]) / 2.0)
        point[rows] = np.clip(np.where(inside, goal, halfway), SMALLEST_SHIFT, LARGEST_SHIFT)
        rows = rows[~near & (high[rows] - low[rows] > _PRECISION * here)]
    return low


def _expected_norm(rho: FloatArray, a: FloatArray, b: FloatArray) -> FloatArray:
    return LikelihoodRatio(rho, cells=CELLS, reach=REACH).expected_norm(a, b)


def newton_step(
    rho: FloatArray, a: FloatArray, b: FloatArray, t: FloatArray, s: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Step of (a, b) towards the least E||L w + lambda|| - <lambda, m(x)>; at most a fifth of their size."""
    da, db = np.zeros(a.shape), np.zeros(a.shape)
    for start in range(0, a.size, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        (ga, gb), (aa, ab, bb) = _derivatives(rho[rows], a[rows], b[rows])
        ga, gb = ga - t[rows], gb + s[rows]
        determinant = np.maximum(aa * bb - ab**2, 1e-300)
        da[rows], db[rows] = (ab * gb - bb * ga) / determinant, (ab * ga - aa * gb) / determinant
    size = np.hypot(da / a, db / b)
    shrink = np.minimum(1.0, 0.2 / np.maximum(size, 1e-300))
    return da * shrink, db * shrink


def newton_length(
    rho: FloatArray, length: FloatArray, cosine: FloatArray, sine: FloatArray, projection: FloatArray
) -> FloatArray:
    """The same along a fixed direction (cosine, -sine)."""
    step = np.zeros(length.shape)
    for start in range(0, length.size, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        c, s = cosine[rows], sine[rows]
        (ga, gb), (aa, ab, bb) = _derivatives(rho[rows], length[rows] * c, -length[rows] * s)
        slope = ga * c - gb * s - projection[rows]
        step[rows] = -slope / np.maximum(aa * c**2 - 2 * ab * c * s + bb * s**2, 1e-300)
    return np.clip(step, -0.2 * length, 0.2 * length)


def _derivatives(
    rho: FloatArray, a: FloatArray, b: FloatArray
) -> tuple[tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray, FloatArray]]:
    """Gradient and Hessian (aa, ab, bb) of E||L w + (a, b)||."""
    ratio = LikelihoodRatio(np.maximum(rho, SMALLEST_SHIFT), cells=CELLS, reach=REACH)
    second = ratio.nodes + b[:, None]
    inverse = 1.0 / np.sqrt(np.square(a)[:, None] + second**2)
    u1, u2 = a[:, None] * inverse, second * inverse
    mass = ratio.weights * inverse
    gradient = np.sum(u1 * ratio.weights, axis=1), np.sum(u2 * ratio.weights, axis=1)
    cross = -np.sum(u1 * u2 * mass, axis=1)
    return gradient, (np.sum(u2**2 * mass, axis=1), cross, np.sum(u1**2 * mass, axis=1))
