"""Good multipliers for any question about a radius, looked up and then mended.

A radius is the largest shift at which one frontier of docs/theory.md T3 and T4 still excludes a point. The
atlas holds frontiers over a grid of shifts, coarse and never trusted: it only proposes lambda = (a, b). A
Newton step mends what interpolation lost, and the shift that the multipliers prove is then found rigorously.
Errors of the look-up cost tightness to second order, and never soundness.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from smoothcert.certificates.domain import FloatArray
from smoothcert.certificates.frontier import (
    LARGEST_SHIFT,
    range_of_a,
    solve_b,
    touching_point,
)
from smoothcert.certificates.likelihood import LikelihoodRatio
from smoothcert.certificates.projection import quantile_of_mean
from smoothcert.certificates.shift_search import (
    CELLS,
    REACH,
    ROWS_AT_ONCE,
    largest_shift,
    newton_length,
    newton_step,
)

_SHIFTS, _LINES = 112, 112
# Keys are angles; lifting each grid shift's keys by more than their range puts all of them into one search.
_LIFT = 4.0
_LINE_CELLS = 1200


@dataclass(frozen=True, slots=True)
class Atlas:
    """Frontiers over a grid of shifts; every table has shape (shifts x lines,), one shift after the other.

    Attributes:
        shift: the grid.
        by_angle: minus the certified angle at a line's touching point, lifted by the number of the shift.
        norm: that point's distance from 0, as Phi^-1((1+x)/2): nearly linear in the shift.
        by_theta: minus the angle of the line's normal, lifted likewise.
        needed: the line's distance from 0, as a quantile likewise.
        log_a: logarithm of a.
        log_b: logarithm of -b.
    """

    shift: FloatArray
    by_angle: FloatArray
    norm: FloatArray
    by_theta: FloatArray
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
        b = solve_b(ratio, a, 0.0, precision=1e-4)
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
    angle, norm, theta, *others = (np.stack(column) for column in zip(*rows, strict=True))
    lift = _LIFT * np.arange(_SHIFTS)[:, None]
    tables = (lift - angle, norm, lift - theta, *others)
    return Atlas(shift, *(table.ravel() for table in tables))


def certified_shift(
    t: FloatArray, s: FloatArray, steepest: FloatArray | float = np.inf
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Largest verified shift that keeps <m(x+delta), w> < 0 for m(x) = (t, -s) in the plane of w; rows (n,).

    T3 asks with t = N cos(psi), s = N sin(psi); T4 with s the margin and t the component of m(x) beside w.
    T4 also limits lambda to b <= steepest a, where the multiplier of the margin would turn negative.

    Returns:
        The shift, 0 where nothing is proved; and whether that limit was met.
    """
    table = atlas()
    angle = np.arctan2(s, t)
    norm = quantile_of_mean(np.minimum(np.hypot(t, s), 1.0))
    column, fraction = _search_by_shift(table.by_angle, -angle, table.norm, norm)
    a, b = _multipliers(table, column, fraction, table.by_angle, -angle)
    guess = _guess(table, column, fraction)
    da, db = newton_step(guess, a, b, t, s)
    a, b = a + da, b + db
    limited = b > steepest * a
    b = np.where(limited, steepest * a, b)
    return largest_shift(a, b, a * t - b * s, guess), limited


def certified_shift_of_direction(projection: FloatArray, theta: FloatArray) -> FloatArray:
    """Largest verified shift that keeps <m(x+delta), w> < 0, from <m(x), v> >= projection alone; rows (n,).

    v = (cos theta, -sin theta) with theta in (0, pi/2): w and v point away from each other.
    """
    table = atlas()
    column, fraction = _search_by_shift(table.by_theta, -theta, table.needed, quantile_of_mean(projection))
    guess = _guess(table, column, fraction)
    length = np.hypot(*_multipliers(table, column, fraction, table.by_theta, -theta))
    cosine, sine = np.cos(theta), np.sin(theta)
    length += newton_length(guess, length, cosine, sine, projection)
    # lambda is a multiple of v, and only the projection on it is known.
    return largest_shift(length * cosine, -length * sine, length * projection, guess)


def nearest_line(norm: FloatArray, rho: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(theta, needed) of a good, rigorous supporting line at each row's own shift; rows (n,)."""
    table = atlas()
    column, fraction = _place(table, rho)
    # The certified angle, which all grid shifts share as a coordinate, at which a point of this norm is on
    # the frontier.
    low, high = np.zeros(norm.shape), np.full(norm.shape, np.pi / 2)
    wanted = quantile_of_mean(norm)
    for _ in range(24):
        angle = (low + high) / 2
        reached = [_at_key(table.by_angle, -angle, i, table.norm) for i in (column, column + 1)]
        beyond = (1.0 - fraction) * reached[0] + fraction * reached[1] > wanted
        low, high = np.where(beyond, angle, low), np.where(beyond, high, angle)
    a, b = _multipliers(table, column, fraction, table.by_angle, -high)
    norm_bound = np.empty(rho.shape)
    for start in range(0, rho.size, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        a[rows], b[rows] = _polished(rho[rows], a[rows], b[rows], wanted[rows])
        fine = LikelihoodRatio(rho[rows], cells=_LINE_CELLS, reach=8.5)
        norm_bound[rows] = fine.expected_norm(a[rows], b[rows])
    return np.arctan2(-b, a), norm_bound / np.hypot(a, b) * (1 + 1e-15)


def _polished(
    rho: FloatArray, a: FloatArray, b: FloatArray, wanted: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Secant steps in log a towards the line that touches the row's own frontier at the wanted norm."""
    ratio = LikelihoodRatio(rho, cells=CELLS, reach=REACH)
    log_a = np.log(a)
    b, quantile = _touching(ratio, a, b)
    step = np.full(a.shape, 0.02)
    for _ in range(3):
        next_b, next_quantile = _touching(ratio, np.exp(log_a + step), b)
        slope = (next_quantile - quantile) / np.where(step == 0.0, np.nan, step)
        log_a, b, quantile = log_a + step, next_b, next_quantile
        newton = (wanted - quantile) / np.where(slope > 0.0, slope, np.nan)
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


def _place(table: Atlas, shift: FloatArray) -> tuple[NDArray[np.intp], FloatArray]:
    """Where a shift lies in the grid: index, and fraction to the next."""
    place = np.interp(shift, table.shift, np.arange(_SHIFTS))
    column = np.minimum(place.astype(np.intp), _SHIFTS - 2)
    return column, np.clip(place - column, 0.0, 1.0)


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
    lifted = key + _LIFT * column
    after = np.searchsorted(keys, lifted)
    after = np.clip(after, column * _LINES + 1, column * _LINES + _LINES - 1)
    start, end = keys[after - 1], keys[after]
    share = np.clip((lifted - start) / np.maximum(end - start, 1e-300), 0.0, 1.0)
    return np.asarray((1.0 - share) * values[after - 1] + share * values[after])


def _guess(table: Atlas, column: NDArray[np.intp], fraction: FloatArray) -> FloatArray:
    return np.asarray(table.shift[column] * (1.0 - fraction) + table.shift[column + 1] * fraction)
