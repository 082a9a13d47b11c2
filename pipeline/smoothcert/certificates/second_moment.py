"""The angular certificate from the spread of the features (docs/theory.md T7): how far the smoothed feature can turn.

T3 knows how much the features agree (N), and its worst encoder turns all disagreement into one direction. Real
features scatter in many: with lambda >= the largest eigenvalue of their covariance, E <u - m, w>^2 <= lambda in every
direction w, and the angle that an attack can reach shrinks. What is returned is never worse than T3.

How to bound lambda from draws, and the event G that spares the bound its worst case: ``smoothcert.statistics``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smoothcert.certificates.angular import angular_bound, angular_radius
from smoothcert.certificates.domain import FloatArray, numbers, positive, shift_in_noise_units
from smoothcert.certificates.frontier import LARGEST_SHIFT, SMALLEST_SHIFT
from smoothcert.certificates.likelihood import LikelihoodRatio
from smoothcert.certificates.projection import ROUNDING
from smoothcert.certificates.second_moment_dual import (
    Facts,
    best_nu,
    dual_value,
    escaping_share,
    improve,
    joined_rows,
    largest_inside,
    rows_of,
)
from smoothcert.certificates.second_moment_search import Crossing, largest_shift, smallest_angle

_COARSE, _COARSE_FAR, _FINE = 112, 240, 600
_QUICK = 400
"""Cells of the grid that proves what the quick search found: few are as good but for the last digits."""
_TRIES, _CAUTION, _CLOSE_ANGLE, _CLOSE_SHIFT, _ASTRAY = 5, 2e-5, 1e-4, 2e-4, 0.03
"""Of proofs near what the quick search found: each try is a little on the safe side of where the last one puts the
crossing, until it is so close to it; a crossing that turns out to be far from there was not found well."""
_FAR = 3.0
_ROWS_AT_ONCE = 512
_QUICK_START, _QUICK_DEVIATION = 0.9, 2.0
"""The quick search starts from multipliers of no larger shift: in parts of N / sqrt(lambda), and of sqrt(E(L-1)^2)."""
_ANGLES, _AIM = 10, 3e-5
# Where no angle was found, the search begins once more just short of 90 degrees, from multipliers of smaller shifts.
_NEARLY_RIGHT, _LARGEST_DEVIATION = 1.5, (1.0, 10.0)
_PRECISION = 3e-4
_SHIFTS = 14
# A proved shift is looked for this far short of the approximate one.
_SHORT = (1e-5, 1e-4, 1e-3, 5e-3, 2e-2, 0.1)
_FIRST_BARRIER, _NEXT_BARRIER = 1e-2, 1e-5
_LEAST_SPREAD = 1e-6
"""A smaller eigenvalue counts as this one: the cosine loses less than that."""
# A proved angle is looked for this far beyond the approximate one.
_BEYOND = (0.0, 1e-5, 1e-4, 5e-4, 2e-3, 1e-2, 5e-2)


def second_moment_bound(
    smooth_norm: ArrayLike,
    eigenvalue: ArrayLike,
    radius: ArrayLike,
    sigma: ArrayLike,
    *,
    escape: ArrayLike = 0.0,
) -> FloatArray:
    """Certified cosine between m(x+delta) and m(x) for every ||delta||_2 <= radius (docs/theory.md T7).

    Args:
        smooth_norm: N = ||m(x)|| or a lower bound of it, in [0,1]; the worst over [smooth_norm, 1] is returned.
        eigenvalue: upper bound of the largest eigenvalue of Cov(u(x+eps)), >= 0, where ``escape`` is 0; else of E 1_G
            (u-a)(u-a)', for any fixed vector a in the unit ball and any event G of the draw.
        radius: l2 radius, >= 0.
        sigma: noise standard deviation, > 0.
        escape: upper bound p0 of P(not G), in [0,1].

    Returns:
        The broadcast certified cosine in [0,1], rounded down, at least that of T3; NaN (vacuous) where only an angle of
        90 degrees or more can be certified. It fails with at most the sum of the failure probabilities of its bounds.

    Raises:
        ValueError: NaN or out of range.
    """
    norm = numbers("smooth_norm", smooth_norm, 0.0, 1.0)
    largest = numbers("eigenvalue", eigenvalue, 0.0, np.finfo(np.float64).max)
    rare = numbers("escape", escape, 0.0, 1.0)
    rho, _ = shift_in_noise_units(radius, sigma)
    simple = angular_bound(norm, radius, sigma)
    norm, largest, rare, rho, simple = np.broadcast_arrays(norm, largest, rare, rho, simple)
    ask = (norm > 0.0) & (norm < 1.0) & (rho > 0.0) & (rho <= LARGEST_SHIFT)
    found = np.full(norm.shape, np.nan)
    found[ask] = _bound(_facts(norm[ask], largest[ask], rare[ask]), np.maximum(rho[ask], SMALLEST_SHIFT))
    return np.asarray(np.fmax(simple, found))


def second_moment_radius(
    smooth_norm: ArrayLike,
    eigenvalue: ArrayLike,
    cosine: ArrayLike,
    sigma: ArrayLike,
    *,
    escape: ArrayLike = 0.0,
) -> FloatArray:
    """Radius within which the cosine between m(x+delta) and m(x) stays at least ``cosine`` (docs/theory.md T7).

    A certificate at one radius holds at every smaller one, so one that is proved a little short of the largest will do.

    Args:
        smooth_norm: see ``second_moment_bound``.
        eigenvalue: likewise.
        cosine: wanted cosine in [0,1].
        sigma: noise standard deviation, > 0.
        escape: likewise.

    Returns:
        A verified radius, at most LARGEST_SHIFT sigma and some 3e-4 of itself below the largest; 0 for a cosine of 1 at
        N < 1; NaN for N = 0.

    Raises:
        ValueError: NaN or out of range.
    """
    tau = numbers("cosine", cosine, 0.0, 1.0)
    spread = positive("sigma", sigma)
    norm, largest, rare, tau, spread = np.broadcast_arrays(
        numbers("smooth_norm", smooth_norm, 0.0, 1.0),
        numbers("eigenvalue", eigenvalue, 0.0, np.finfo(np.float64).max),
        numbers("escape", escape, 0.0, 1.0),
        tau,
        spread,
    )
    simple = angular_radius(norm, tau, 1.0)
    low = np.array(np.nan_to_num(simple))
    ask = np.flatnonzero((norm > 0.0) & (norm < 1.0) & (tau < 1.0) & (low < LARGEST_SHIFT))
    facts = _facts(norm.ravel()[ask], largest.ravel()[ask], rare.ravel()[ask])
    found = _largest_shift(facts, tau.ravel()[ask], low.ravel()[ask])
    low.flat[ask] = found
    return np.where(np.isnan(simple), np.nan, low * spread * (1 - ROUNDING))


def _largest_shift(facts: Facts, tau: FloatArray, low: FloatArray) -> FloatArray:
    """Shifts (rows,) at which the cosines are proved: at least ``low``, at which they are known to hold."""
    found, psi = low.copy(), np.arccos(tau)
    # that of the closed form, which knows of no escape
    first = np.maximum(np.sqrt(np.log1p((np.sin(psi) * facts.norm) ** 2 / facts.spread)), low)
    far = first > _FAR - 1.0
    for group in (np.flatnonzero(~far), np.flatnonzero(far)):
        for start in range(0, group.size, _ROWS_AT_ONCE):
            rows = group[start : start + _ROWS_AT_ONCE]
            found[rows] = _proved_shift(facts.take(rows), psi[rows], low[rows], first[rows])
    return found


def _proved_shift(facts: Facts, psi: FloatArray, low: FloatArray, first: FloatArray) -> FloatArray:
    """As ``_largest_shift``, of a few rows by their angles: nearly the largest shift, then a little less, proved."""
    near = bool(first.max() <= _FAR - 1.0)
    cells, limit = (_COARSE, _FAR) if near else (_COARSE_FAR, LARGEST_SHIFT)
    first = np.clip(first, SMALLEST_SHIFT, limit)
    found = _quick_shifts(facts, psi, low, np.minimum(first, 0.8 * _FAR))
    rows = np.flatnonzero(np.isnan(found))
    if rows.size:
        found[rows] = _searched_shifts(facts.take(rows), psi[rows], low[rows], first[rows], cells, limit)
    return found


def _quick_shifts(facts: Facts, psi: FloatArray, low: FloatArray, first: FloatArray) -> FloatArray:
    """As ``_proved_shift``; NaN where the quick search or its proof says nothing."""
    _, start = _start(facts, first)
    start[:, 1] = -1.0 - 2.0 * start[:, 2] * facts.norm * np.sin(psi)
    crossing = largest_shift(facts, psi, first, start, _FAR)
    result = np.full(low.shape, np.nan)
    rows = np.flatnonzero(crossing.settled & (crossing.place < _FAR))

    def right_side(some: NDArray[np.intp], rho: FloatArray) -> FloatArray:
        part = facts.take(some), psi[some], crossing.multipliers[some]
        return dual_value(_grids(rho, _QUICK, 8.5), *part, best_nu(rho, *part))

    proved = _proved_places(rows, crossing, right_side, 1.0)
    result[rows] = np.where(proved > low[rows], proved, np.nan)
    return result


def _searched_shifts(
    facts: Facts, psi: FloatArray, low: FloatArray, first: FloatArray, cells: int, limit: float
) -> FloatArray:
    """As ``_proved_shift``, by steps in the shift with the best multipliers at each."""
    shift, multipliers = _search_shift(facts, psi, low, first, cells, limit)
    found = low.copy()
    rows = np.flatnonzero(shift > low)
    for short in _SHORT:
        if not rows.size:
            break
        rho = np.maximum(shift[rows] * (1.0 - short), SMALLEST_SHIFT)
        part = facts.take(rows), psi[rows], multipliers[rows]
        held = dual_value(_grids(rho, _FINE, 8.5), *part, best_nu(rho, *part)) < 0.0
        held |= np.nan_to_num(_closed_form(part[0], rho)) >= np.cos(psi[rows]) + ROUNDING
        found[rows[held]] = np.maximum(rho[held], low[rows[held]])
        rows = rows[~held]
    return found


def _search_shift(
    facts: Facts, psi: FloatArray, low: FloatArray, first: FloatArray, cells: int, limit: float
) -> tuple[FloatArray, FloatArray]:
    """Nearly the largest shifts up to a limit at which the dual excludes the angles, and the multipliers there.

    From ``first`` on a Newton step on the least right side, then secants, in a bracket.
    """
    shift = first.copy()
    _, here = _start(facts, shift)
    here[:, 1] = -1.0 - 2.0 * here[:, 2] * facts.norm * np.sin(psi)
    least, most = low.copy(), np.full(low.shape, np.inf)
    before, value_before = np.full(low.shape, np.nan), np.full(low.shape, np.nan)
    best, chosen = low.copy(), here.copy()
    rows = np.arange(low.size)
    for step in range(_SHIFTS):
        rho, some = shift[rows], facts.take(rows)
        coarse = _grids(rho, cells, 7.0)
        barrier = _NEXT_BARRIER if step else _FIRST_BARRIER
        escaping = escaping_share(coarse, some.rare)
        here[rows], value, slope = improve(coarse, escaping, some, psi[rows], here[rows], 40, barrier)
        held = value < 0.0
        better = held & (rho > best[rows])
        best[rows[better]], chosen[rows[better]] = rho[better], here[rows[better]]
        least[rows[held]], most[rows[~held]] = rho[held], rho[~held]
        steep = -slope * np.minimum(np.tan(psi[rows]), 5.0) * rho * np.exp(rho**2) / np.expm1(rho**2)
        secant = (value - value_before[rows]) / (rho - before[rows])
        steep = np.where(np.isfinite(secant) & (secant > 0.0), secant, np.maximum(steep, 1e-300))
        before[rows], value_before[rows] = rho, value
        ahead = (rho - value / steep) * (1.0 - _AIM)
        inside = (ahead > least[rows]) & (ahead < most[rows])
        middle = np.where(np.isinf(most[rows]), 1.5 * rho, (least[rows] + most[rows]) / 2.0)
        shift[rows] = np.clip(np.where(inside, ahead, middle), SMALLEST_SHIFT, limit)
        narrow = least[rows] >= (1.0 - _PRECISION) * most[rows]
        still = np.abs(shift[rows] - rho) <= 0.2 * _PRECISION * rho
        rows = rows[~(narrow | (still & held))]
        if not rows.size:
            break
    return best, chosen


def _facts(norm: FloatArray, largest: FloatArray, rare: FloatArray) -> Facts:
    # With an event G the bound about a is one about m but for 4 p0^2.
    spread = largest + np.where(rare > 0.0, 4.0 * rare**2, 0.0)
    return Facts(norm, _spread_at(norm, spread), rare)


def _bound(facts: Facts, rho: FloatArray) -> FloatArray:
    """Cosines; every row has a grid of its own, so that none depends on the others."""
    result = np.empty(rho.size)
    far = rho > _FAR
    for group in (np.flatnonzero(~far), np.flatnonzero(far)):
        for start in range(0, group.size, _ROWS_AT_ONCE):
            rows = group[start : start + _ROWS_AT_ONCE]
            result[rows] = _some_rows(facts.take(rows), rho[rows])
    return np.asarray(np.fmax(result, _closed_form(facts, rho)))


def _grids(rho: FloatArray, cells: int, reach: float) -> LikelihoodRatio:
    """A grid a row, whose extent is that of its own shift."""
    extent = np.ceil(2.0 * rho)
    groups = [np.flatnonzero(extent == each) for each in np.unique(extent)]
    parts = [LikelihoodRatio(rho[rows], cells=cells, reach=reach) for rows in groups]
    return joined_rows(parts, np.argsort(np.concatenate(groups)))


def _some_rows(facts: Facts, rho: FloatArray) -> FloatArray:
    """Cosines of a few rows, NaN where there is none: by the quick search, or where it says nothing by the slow one."""
    result, rows = np.full(rho.size, np.nan), np.arange(rho.size)
    if rho.max() <= _FAR:
        result, rows = _quick_cosines(facts, rho)
    if rows.size:
        result[rows] = _searched_cosines(facts.take(rows), rho[rows])
    return result


def _quick_cosines(facts: Facts, rho: FloatArray) -> tuple[FloatArray, NDArray[np.intp]]:
    """Cosines, and the rows of which neither one nor that there is none was found."""
    deviation = np.minimum(_QUICK_START * facts.norm / np.sqrt(facts.spread), _QUICK_DEVIATION)
    crossing = smallest_angle(facts, rho, *_start(facts, np.minimum(rho, np.sqrt(np.log1p(deviation**2)))))
    result, unknown = np.full(rho.size, np.nan), ~crossing.vacuous
    rows = np.flatnonzero(crossing.settled)
    if not rows.size:
        return result, np.flatnonzero(unknown)
    fine = _grids(rho, _QUICK, 8.5)
    inside = largest_inside(fine, crossing.multipliers)

    def right_side(some: NDArray[np.intp], psi: FloatArray) -> FloatArray:
        part = facts.take(some), psi, crossing.multipliers[some]
        return dual_value(rows_of(fine, some), *part, best_nu(rho[some], *part), inside[some])

    result[rows] = np.maximum(np.cos(_proved_places(rows, crossing, right_side, -1.0)) - ROUNDING, 0.0)
    return result, np.flatnonzero(unknown & np.isnan(result))


def _proved_places(
    rows: NDArray[np.intp],
    crossing: Crossing,
    right_side: Callable[[NDArray[np.intp], FloatArray], FloatArray],
    sign: float,
) -> FloatArray:
    """Angles (sign -1) or shifts (1) close to the crossings where the right side is proved negative, or NaN.

    ``right_side(rows, places)`` is a proved bound of it at the known N, for the multipliers that the search ended with.
    """
    proved = np.full(rows.size, np.nan)
    most, close_to = (np.pi / 2, _CLOSE_ANGLE) if sign < 0.0 else (_FAR, _CLOSE_SHIFT)
    place = np.minimum(crossing.place[rows] * (1.0 - sign * _CAUTION), most)
    rest = np.arange(rows.size)
    for _ in range(_TRIES):
        if not rest.size:
            break
        some, tried = rows[rest], place[rest]
        value = right_side(some, tried)
        step = -value / crossing.slope[some]
        close = (value < 0.0) & (np.abs(step) <= close_to * tried)
        proved[rest[close]] = tried[close]
        place[rest] = np.minimum(tried + step - sign * _CAUTION * tried, most)
        astray = ~(np.abs(place[rest] / crossing.place[some] - 1.0) <= _ASTRAY)
        rest = rest[~(close | astray)]
    return proved


def _searched_cosines(facts: Facts, rho: FloatArray) -> FloatArray:
    """Angles and multipliers on a coarse grid, then the first angle that is proved."""
    coarse = _grids(rho, _COARSE if rho.max() <= _FAR else _COARSE_FAR, 7.0)
    escaping = escaping_share(coarse, facts.rare)
    psi, multipliers, slope = _search(coarse, escaping, facts, rho)
    result = np.full(rho.size, np.nan)
    rows = np.flatnonzero(np.isfinite(psi))
    if not rows.size:
        return result
    fine = _grids(rho, _FINE, 8.5)
    # the fine grid leaves a smaller angle for the same multipliers
    part = facts.take(rows), psi[rows], multipliers[rows]
    value = dual_value(rows_of(fine, rows), *part, best_nu(rho[rows], *part))
    ahead = psi[rows] - (1.0 - _AIM) * value / np.minimum(slope[rows], -1e-300)
    psi[rows] = np.clip(ahead, 0.9 * psi[rows], np.pi / 2)
    for beyond in _BEYOND:
        # an angle that is excluded excludes the larger ones, so a little beyond costs only that
        if not rows.size:
            break
        angle = np.minimum(psi[rows] * (1.0 + beyond), np.pi / 2)
        part = facts.take(rows), angle, multipliers[rows]
        held = dual_value(rows_of(fine, rows), *part, best_nu(rho[rows], *part)) < 0.0
        result[rows[held]] = np.maximum(np.cos(angle[held]) - ROUNDING, 0.0)
        rows = rows[~held]
    return result


def _search(
    coarse: LikelihoodRatio, escaping: FloatArray, facts: Facts, rho: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Nearly the smallest angles that the dual excludes (NaN: not even 90 degrees), their multipliers, and slopes.

    Newton steps on the least right side as a function of the angle, in a bracket whose upper end is excluded.
    """
    psi, here = _start(facts, rho)
    here, value, slope = improve(coarse, escaping, facts, psi, here, 40, _FIRST_BARRIER)
    low = np.zeros(rho.size)
    # An escape costs more than the closed form knows of.
    while (rows := np.flatnonzero((value >= 0.0) & (psi < np.pi / 2))).size:
        low[rows], psi[rows] = psi[rows], np.minimum(2.0 * psi[rows], np.pi / 2)
        here[rows], value[rows], slope[rows] = improve(
            rows_of(coarse, rows), escaping[rows], facts.take(rows), psi[rows], here[rows], 40, _FIRST_BARRIER
        )
    # Far from the closed form its multipliers are far too large, and steps from there end nowhere.
    for largest in _LARGEST_DEVIATION:
        rows = np.flatnonzero(value >= 0.0)
        if not rows.size:
            break
        again, some = np.full(rows.size, _NEARLY_RIGHT), facts.take(rows)
        _, fresh = _start(some, np.minimum(rho[rows], np.sqrt(np.log1p(largest**2))))
        fresh[:, 1] = -1.0 - 2.0 * fresh[:, 2] * some.norm * np.sin(again)
        found = improve(rows_of(coarse, rows), escaping[rows], some, again, fresh, 40, _FIRST_BARRIER)
        held = found[1] < 0.0
        psi[rows[held]], low[rows[held]] = _NEARLY_RIGHT, 0.0
        for state, new in zip((here, value, slope), found, strict=True):
            state[rows[held]] = new[held]
    low, high = 0.9 * low, np.where(value < 0.0, psi, np.nan)
    best, steepness = here.copy(), slope.copy()
    for _ in range(_ANGLES):
        ahead = psi - value / np.minimum(slope, -1e-300) + _AIM * psi
        inside = (ahead > low) & (ahead < high)
        tried = np.where(inside, ahead, (low + high) / 2.0)
        rows = np.flatnonzero(
            np.isfinite(high) & (high - low > 2 * _AIM * high) & (np.abs(tried - high) > _AIM * high)
        )
        if not rows.size:
            break
        psi[rows] = tried[rows]
        found = improve(
            rows_of(coarse, rows), escaping[rows], facts.take(rows), psi[rows], here[rows], 30, _NEXT_BARRIER
        )
        here[rows], value[rows], slope[rows] = found
        held = found[1] < 0.0
        high[rows[held]], low[rows[~held]] = psi[rows[held]], psi[rows[~held]]
        best[rows[held]], steepness[rows[held]] = found[0][held], found[2][held]
    return high, best, steepness


def _spread_at(norm: FloatArray, spread: FloatArray) -> FloatArray:
    """The eigenvalue never exceeds the trace 1 - N^2."""
    return np.maximum(np.minimum(spread, (1.0 - norm) * (1.0 + norm) * (1 + ROUNDING)), _LEAST_SPREAD)


def _closed_form(facts: Facts, rho: FloatArray) -> FloatArray:
    """Cosine of sin psi = sqrt((exp(rho^2) - 1) lambda) / N, from the chi-square distance; NaN where there is none."""
    square = np.expm1(rho**2) * facts.spread / facts.norm**2 * (1 + ROUNDING) + ROUNDING
    usable = (square < 1.0) & (facts.rare == 0.0)
    return np.where(usable, np.sqrt(1.0 - np.where(usable, square, 0.0)) * (1 - ROUNDING), np.nan)


def _start(facts: Facts, rho: FloatArray) -> tuple[FloatArray, FloatArray]:
    """A little more than the angle of the closed form sin psi = sqrt((exp(rho^2) - 1) lambda) / N, or 90 degrees."""
    deviation = np.sqrt(np.expm1(rho**2))
    sine = np.minimum(deviation * np.sqrt(facts.spread) / facts.norm, 1.0)
    mu = deviation / (2.0 * np.sqrt(facts.spread))
    b = -1.0 - 2.0 * mu * facts.norm * sine
    return np.minimum(1.03 * np.arcsin(sine) + 1e-6, np.pi / 2), np.stack([0.3 * deviation, b, mu], axis=1)
