"""Good multipliers for any radius question, looked up; and the rigorous radius that they prove.

A radius is the largest shift at which one frontier of theory.md T3/T4 still excludes a point. The atlas holds
frontiers over a grid of shifts, coarse and never trusted: it only proposes lambda = (a, b). Then, with lambda
fixed, E||L w + lambda|| grows with the shift, and the largest shift at which its *rigorous* bound stays
within the budget <lambda, m(x)> is found by a bracketed search whose lower end is always verified. Errors of
the look-up cost tightness to second order, and never soundness.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from smoothcert.certificates.domain import FloatArray
from smoothcert.certificates.frontier import (
    LARGEST_SHIFT,
    SMALLEST_SHIFT,
    range_of_a,
    solve_b,
    touching_point,
)
from smoothcert.certificates.likelihood import LikelihoodRatio
from smoothcert.certificates.projection import quantile_of_mean

_SHIFTS, _LINES = 140, 128
_ROWS_AT_ONCE = 64
_CELLS, _REACH = 384, 6.5
_LINE_CELLS = 1200


@dataclass(frozen=True, slots=True)
class Atlas:
    """Frontiers over a grid of shifts; every table has shape (shifts, lines).

    ``angle`` is the certified angle of a line's touching point, ``norm`` its distance from 0, ``theta`` the
    line's normal, ``needed`` the distance of the line from 0, both as Phi^-1((1+x)/2), which is nearly linear
    in the shift; ``log_a`` and ``log_b`` are the logarithms of a and -b.
    """

    shift: FloatArray
    angle: FloatArray
    norm: FloatArray
    theta: FloatArray
    needed: FloatArray
    log_a: FloatArray
    log_b: FloatArray


@lru_cache(maxsize=1)
def atlas() -> Atlas:
    """Build the atlas on first use (a fraction of a second)."""
    shift = np.concatenate(
        [
            np.geomspace(1e-4, 0.5, _SHIFTS // 2),
            np.linspace(0.5, LARGEST_SHIFT, _SHIFTS - _SHIFTS // 2 + 1)[1:],
        ]
    )
    rows = []
    for rho in shift:
        low, high = range_of_a(float(rho))
        # Nearer to the vacuous end the coarse grid cannot resolve the kink.
        a = np.geomspace(10 * low, high, _LINES - 1)
        ratio = LikelihoodRatio(rho, cells=200, reach=6.0)
        b = solve_b(ratio, a, 0.0)
        t, s = touching_point(ratio, a, b)
        # Sorted, so that searches in them are defined even where the last digits are not.
        angle = np.minimum.accumulate(np.arctan2(s, t))
        norm = np.maximum.accumulate(quantile_of_mean(np.minimum(np.hypot(t, s), 1.0)))
        theta = np.minimum.accumulate(np.arctan2(-b, a))
        needed = quantile_of_mean(np.minimum(ratio.expected_norm(a, b) / np.hypot(a, b), 1.0))
        # The limit a -> 0, where T3 becomes vacuous: psi = 90 degrees at N = 2 Phi(rho) - 1, i.e. quantile
        # rho.
        limit = (np.pi / 2, rho, np.pi / 2, rho, np.log(low), rho**2 / 2)
        columns = (angle, norm, theta, needed, np.log(a), np.log(-b))
        rows.append([np.concatenate([[x], column]) for x, column in zip(limit, columns, strict=True)])
    tables = [np.stack(column) for column in zip(*rows, strict=True)]
    return Atlas(shift, *tables)


def certified_shift(t: FloatArray, s: FloatArray, steepest: FloatArray | float = np.inf) -> FloatArray:
    """Largest verified shift that keeps <m(x+delta), w> < 0 for m(x) = (t, -s) in the plane of w; rows (n,).

    T3 asks with t = N cos(psi), s = N sin(psi); T4 with s the margin and t the component of m(x) beside w.
    T4 also limits lambda to b <= steepest a, where the multiplier of the margin would turn negative.
    Returns 0 where nothing is proved.
    """
    table = atlas()
    angle = np.arctan2(s, t)
    column, fraction = _search_by_shift(-table.angle, -angle, table.norm, quantile_of_mean(np.hypot(t, s)))
    a, b = _multipliers(table, column, fraction, -table.angle, -angle)
    b = np.minimum(b, steepest * a)
    return largest_shift(a, b, a * t - b * s, _guess(table, column, fraction))


def certified_shift_of_direction(projection: FloatArray, theta: FloatArray) -> FloatArray:
    """Largest verified shift that keeps <m(x+delta), w> < 0, from <m(x), v> >= projection alone; rows (n,).

    v = (cos theta, -sin theta) with theta in (0, pi/2): w and v point away from each other.
    """
    table = atlas()
    column, fraction = _search_by_shift(-table.theta, -theta, table.needed, quantile_of_mean(projection))
    a, b = _multipliers(table, column, fraction, -table.theta, -theta)
    # lambda must be a multiple of v, and only the projection on it is known.
    length = np.hypot(a, b)
    guess = _guess(table, column, fraction)
    return largest_shift(length * np.cos(theta), -length * np.sin(theta), length * projection, guess)


def nearest_line(norm: FloatArray, rho: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(theta, needed) of a good, rigorous supporting line at each row's own shift; rows (n,)."""
    table = atlas()
    place = np.interp(rho, table.shift, np.arange(_SHIFTS))
    column = np.minimum(place.astype(np.intp), _SHIFTS - 2)
    fraction = np.clip(place - column, 0.0, 1.0)
    # The certified angle, which all grid shifts share as a coordinate, at which a point of this norm is on
    # the frontier.
    low, high = np.zeros(norm.shape), np.full(norm.shape, np.pi / 2)
    wanted = quantile_of_mean(norm)
    for _ in range(24):
        angle = (low + high) / 2
        reached = [_at_key(-table.angle, -angle, i, table.norm) for i in (column, column + 1)]
        beyond = (1.0 - fraction) * reached[0] + fraction * reached[1] > wanted
        low, high = np.where(beyond, angle, low), np.where(beyond, high, angle)
    a, b = _multipliers(table, column, fraction, -table.angle, -high)
    norm_bound = np.empty(rho.shape)
    for start in range(0, rho.size, _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        a[rows], b[rows] = _polished(rho[rows], a[rows], b[rows], wanted[rows])
        fine = LikelihoodRatio(rho[rows], cells=_LINE_CELLS, reach=8.5)
        norm_bound[rows] = fine.expected_norm(a[rows], b[rows])
    return np.arctan2(-b, a), norm_bound / np.hypot(a, b) * (1 + 1e-15)


def largest_shift(a: FloatArray, b: FloatArray, budget: FloatArray, guess: FloatArray) -> FloatArray:
    """Largest shift found, and verified, with E||L w + (a, b)|| <= budget; rows (n,); 0 where there is none.

    The expectation grows with the shift (L grows in convex order), so every smaller shift is proved too.
    """
    result = np.zeros(budget.shape)
    for start in range(0, budget.size, _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        result[rows] = _search_shift(a[rows], b[rows], budget[rows], guess[rows])
    return result


def _search_shift(a: FloatArray, b: FloatArray, budget: FloatArray, guess: FloatArray) -> FloatArray:
    low, high = np.zeros(budget.shape), np.full(budget.shape, np.inf)
    excess_low, excess_high = np.full(budget.shape, np.nan), np.full(budget.shape, np.nan)
    trial = np.clip(guess, SMALLEST_SHIFT, LARGEST_SHIFT)
    rows = np.arange(budget.size)
    stride = 0.004
    for _ in range(80):
        excess = _expected_norm(trial, a[rows], b[rows]) - budget[rows]
        proved = excess <= 0
        up, down = rows[proved], rows[~proved]
        # Illinois: an end that stays twice counts half, so that both ends close in.
        excess_high[up] *= 0.5
        excess_low[down] *= 0.5
        low[up], excess_low[up] = trial[proved], excess[proved]
        high[down], excess_high[down] = trial[~proved], excess[~proved]
        rows = rows[
            (high[rows] - low[rows] > 2e-7 * high[rows])
            & (low[rows] < LARGEST_SHIFT)
            & (high[rows] > SMALLEST_SHIFT)
        ]
        if rows.size == 0:
            break
        stride *= 2.0
        trial = _next_trial(low[rows], high[rows], excess_low[rows], excess_high[rows], stride)
    return low


def _next_trial(
    low: FloatArray, high: FloatArray, excess_low: FloatArray, excess_high: FloatArray, stride: float
) -> FloatArray:
    """Walk away from the guess in growing strides until the root is bracketed, then false position."""
    with np.errstate(invalid="ignore"):
        share = -excess_low / (excess_high - excess_low)
        between = low + (high - low) * np.clip(share, 0.001, 0.999)
    upwards = np.minimum(low * (1.0 + stride), LARGEST_SHIFT)
    downwards = np.maximum(high / (1.0 + stride), SMALLEST_SHIFT)
    return np.where(np.isinf(high), upwards, np.where(low == 0.0, downwards, between))


def _expected_norm(rho: FloatArray, a: FloatArray, b: FloatArray) -> FloatArray:
    return LikelihoodRatio(rho, cells=_CELLS, reach=_REACH).expected_norm(a, b)


def _polished(
    rho: FloatArray, a: FloatArray, b: FloatArray, wanted: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Secant steps in log a towards the line that touches the row's own frontier at the wanted norm."""
    ratio = LikelihoodRatio(rho, cells=_CELLS, reach=_REACH)
    log_a = np.log(a)
    b, quantile = _touching(ratio, a, b)
    step = np.full(a.shape, 0.02)
    for _ in range(3):
        next_b, next_quantile = _touching(ratio, np.exp(log_a + step), b)
        slope = (next_quantile - quantile) / np.where(step == 0.0, np.nan, step)
        log_a, b, quantile = log_a + step, next_b, next_quantile
        newton = (wanted - quantile) / slope
        step = np.where(np.isfinite(newton), np.clip(newton, -1.0, 1.0), 0.0)
    log_a += step
    return np.exp(log_a), _touching(ratio, np.exp(log_a), b)[0]


def _touching(ratio: LikelihoodRatio, a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Newton steps in b until the line of (a, b) touches the frontier; b, and the touching norm as a quantile."""
    weights = ratio.weights * ratio.nodes
    for _ in range(3):
        second = ratio.nodes + b[:, None]
        inverse = 1.0 / np.sqrt(np.square(a)[:, None] + second**2)
        u2 = second * inverse
        value = np.einsum("nj,nj->n", u2, weights)
        slope = np.einsum("nj,nj,nj->n", 1.0 - u2**2, inverse, weights)
        t = a * np.einsum("nj,nj->n", inverse, ratio.weights)
        s = np.einsum("nj,nj->n", u2, ratio.weights)
        b = np.clip(b - value / np.maximum(slope, 1e-300), 1.5 * b, 0.5 * b)
    return b, quantile_of_mean(np.minimum(np.hypot(t, s), 1.0))


def _search_by_shift(
    keys: FloatArray, key: FloatArray, values: FloatArray, wanted: FloatArray
) -> tuple[NDArray[np.intp], FloatArray]:
    """The grid shift (index, fraction to the next) at which the value at ``key`` reaches ``wanted``.

    ``keys`` grow along lines; the value at a fixed key grows with the shift.
    """
    low, high = np.zeros(key.shape, dtype=np.intp), np.full(key.shape, _SHIFTS - 1)
    while np.any(high - low > 1):
        middle = (low + high) // 2
        fits = _at_key(keys, key, middle, values) <= wanted
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    below, above = _at_key(keys, key, low, values), _at_key(keys, key, high, values)
    return low, np.clip((wanted - below) / np.maximum(above - below, 1e-300), 0.0, 1.0)


def _multipliers(
    table: Atlas, column: NDArray[np.intp], fraction: FloatArray, keys: FloatArray, key: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """(a, b) interpolated at ``key`` between the grid shifts ``column`` and ``column + 1``."""
    logs = [
        (1.0 - fraction) * _at_key(keys, key, column, values)
        + fraction * _at_key(keys, key, column + 1, values)
        for values in (table.log_a, table.log_b)
    ]
    return np.exp(logs[0]), -np.exp(logs[1])


def _at_key(keys: FloatArray, key: FloatArray, column: NDArray[np.intp], values: FloatArray) -> FloatArray:
    """``values`` interpolated along the lines of one grid shift per row, clamped at both ends."""
    # All rows in one search: keys lie within [-2, 2], so lifting each grid shift by 8 keeps them apart.
    lifted = (keys + 8.0 * np.arange(_SHIFTS)[:, None]).ravel()
    place = np.searchsorted(lifted, key + 8.0 * column) - column * _LINES
    after = np.clip(place, 1, _LINES - 1) + column * _LINES
    flat, start, end = values.ravel(), keys.ravel()[after - 1], keys.ravel()[after]
    share = np.clip((key - start) / np.maximum(end - start, 1e-300), 0.0, 1.0)
    return np.asarray((1.0 - share) * flat[after - 1] + share * flat[after])


def _guess(table: Atlas, column: NDArray[np.intp], fraction: FloatArray) -> FloatArray:
    return np.asarray(table.shift[column] * (1.0 - fraction) + table.shift[column + 1] * fraction)
