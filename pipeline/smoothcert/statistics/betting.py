"""Betting on a bounded mean: stakes, capital, and the lower confidence bound that follows.

To bound E[Y] from below, one bets against "the mean is at most m": the capital

    K_t(m) = average over c of prod_{i <= t} (1 + lambda_i(m) (Y_i - m)),   lambda_i(m) = min(stake_i, c/m)

is a non-negative supermartingale if the mean is at most m, so it reaches 1/alpha at any time with probability
at most alpha (Ville). Stakes use earlier draws only. K falls in m, so the m whose capital has reached 1/alpha
at some time so far form an interval from 0: its end is the bound, valid at every stopping time (Waudby-Smith
and Ramdas 2023, arXiv 2010.09686; docs/theory.md section 3.4). Looking at the largest capital so far,
instead of the last one, is free: Ville bounds the supremum.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from smoothcert.statistics.limit_capital import NARROW, WIDE, LimitCapital, PowerSums, limit_mean

Array = NDArray[np.float64]

FRACTIONS = (0.5, 0.9, 0.99)
"""The shares c of what could be lost at once that the three mixed gamblers stake at most."""

_TOLERANCE = 1e-6
"""The bound returned is about this far below the exact root at most, and never above it."""
_ROUNDING = 1e-9
"""The log capital must exceed its threshold by this much: floating point error of sums of logarithms."""
_BLOCK = 8
"""Factors multiplied before a logarithm is taken. A factor is in [0.01, 1e9], so a block cannot overflow."""
_ROWS, _DRAWS = 128, 128
"""Rows and draws worked on at once: such a tile stays in the cache."""
_STAKED_ROWS = 8


@dataclass(frozen=True, slots=True)
class Bets:
    """How to bet, fixed before the draws from what the pilot showed; any choice keeps every bound valid.

    Attributes:
        mean: (rows,) the pilot's mean scores, in [0, 1].
        variance: (rows,) their variances, >= 0.
        pilot_draws: how many draws these rest on, at least 1: their weight beside the fresh ones.
        weights: (rows, 3) shares of the capital that the gamblers of ``FRACTIONS`` start with, of sum 1.
        horizon: draws that the stakes are tuned to, if their number is fixed; None for stakes that suit any time.
    """

    mean: Array
    variance: Array
    pilot_draws: int
    weights: Array
    horizon: int | None = None

    def __post_init__(self) -> None:
        rows = np.shape(self.mean)
        if (
            len(rows) != 1
            or np.shape(self.variance) != rows
            or np.shape(self.weights) != (*rows, len(FRACTIONS))
        ):
            raise ValueError("mean and variance must be (rows,) and weights (rows, 3)")
        if not (((self.mean >= 0.0) & (self.mean <= 1.0) & (self.variance >= 0.0)).all()):
            raise ValueError("mean must be in [0, 1] and variance at least 0, and neither NaN")
        if not (
            (self.weights >= 0.0).all() and np.allclose(self.weights.sum(axis=1), 1.0, rtol=0.0, atol=1e-12)
        ):
            raise ValueError("weights must not be negative, and sum to 1 in every row")
        if self.pilot_draws < 1 or (self.horizon is not None and self.horizon < 1):
            raise ValueError(f"pilot_draws={self.pilot_draws} and horizon={self.horizon} must be at least 1")

    def take(self, rows: slice | NDArray[np.intp]) -> Bets:
        """Some rows."""
        return Bets(self.mean[rows], self.variance[rows], self.pilot_draws, self.weights[rows], self.horizon)

    def stakes(self, draws: Array, alpha: float) -> Array:
        """Stakes (rows, n) for draws in order: each uses the pilot and the draws before it."""
        nothing = np.zeros((1, 1))
        sizes = np.empty(draws.shape)
        # a few rows at a time, so that what is computed on the way stays in the cache
        for start in range(0, len(draws), _STAKED_ROWS):
            rows = slice(start, start + _STAKED_ROWS)
            prior = self.mean[rows, None], nothing + self.pilot_draws, nothing + (self.horizon or 0)
            squares = self.pilot_draws * self.variance[rows, None]
            sizes[rows], _ = primed_stakes(draws[rows], alpha, prior, nothing, nothing, squares)
        return sizes


def choose_bets(pilot: Array, alpha: float, draws: int, *, fixed: bool = False) -> Bets:
    """Bets from pilot scores, by the variance they show.

    Where the best stake is at its limit anyway, which is so for scores of low variance, nearly all capital goes to the
    gambler who stakes most; elsewhere it is shared equally, or, for stakes tuned to a fixed number, between the most
    and the least daring.

    Args:
        pilot: (rows, n0) scores in [0, 1] of draws that are not used again.
        alpha: failure probability of the bound to come.
        draws: fresh draws that there will be at most.
        fixed: whether there will be exactly so many.

    Raises:
        ValueError: no pilot draws, a score outside [0, 1], or a number out of range.
    """
    scores = np.asarray(pilot, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[1] == 0 or not ((scores >= 0.0) & (scores <= 1.0)).all():
        raise ValueError("pilot must hold scores (rows, draws) in [0, 1], of at least one draw")
    if not 0.0 < alpha < 1.0 or draws < 1:
        raise ValueError(f"alpha={alpha} must be in (0, 1) and draws={draws} at least 1")
    return bets_for(scores.mean(axis=1), scores.var(axis=1), scores.shape[1], alpha, draws, fixed=fixed)


def bets_for(
    mean: Array, variance: Array, pilot_draws: int, alpha: float, draws: int, *, fixed: bool = False
) -> Bets:
    """The same from the pilot scores' means and variances, (rows,) each."""
    at_limit = draws * variance <= 2.0 * math.log(1.0 / alpha) * mean**2
    shared = (0.1, 0.0, 0.9) if fixed else (1.0 / 3.0,) * 3
    weights = np.where(at_limit[:, None], (0.05, 0.10, 0.85), shared)
    return Bets(mean, variance, pilot_draws, weights, draws if fixed else None)


def stakes(
    draws: Array, alpha: float, count: Array, total: Array, deviation: Array
) -> tuple[Array, Array, Array]:
    """Predictable stakes for the next draws, and the sums after each of them.

    Args:
        draws: (..., n), in [0, 1], the draws in order along the last axis.
        alpha: level for which the stakes are tuned; any value keeps the capital valid.
        count: (..., 1) draws seen before; may be (1, 1) where it is the same for all.
        total: (..., 1) their sum.
        deviation: (..., 1) sum of their squared deviations, each from the running mean at its time.

    Returns:
        (stakes, totals, deviations), each (..., n): the i-th stake uses the draws before the i-th; the i-th
        sums include it.
    """
    index = count + np.arange(1, draws.shape[-1] + 1)
    totals = total + np.cumsum(draws, -1)
    means = (0.5 + totals) / (index + 1.0)
    deviations = deviation + np.cumsum((draws - means) ** 2, -1)
    # i times the variance before the i-th draw: 1/4 + sum over earlier ones
    earlier = np.concatenate((deviation + 0.0 * draws[..., :1], deviations[..., :-1]), -1)
    sizes = np.sqrt((2.0 * math.log(1.0 / alpha) / np.log1p(index)) / (earlier + 0.25))
    return sizes, totals, deviations


def primed_stakes(
    draws: Array, alpha: float, prior: tuple[Array, Array, Array], count: Array, total: Array, squares: Array
) -> tuple[Array, Array]:
    """Predictable stakes that start from a pilot, and the sums of squares after each draw.

    Args:
        draws: (..., n), in [0, 1], in order.
        alpha: level for which the stakes are tuned.
        prior: (..., 1) each: the pilot's mean, its number of draws (at least 1), and the number of fresh draws that the
            stakes are tuned to, 0 for none.
        count: (..., 1) fresh draws seen before.
        total: (..., 1) their sum.
        squares: (..., 1) the pilot's squared deviations and theirs, each from the running mean at its time.

    Returns:
        (stakes, squares), each (..., n): the i-th stake uses what came before the i-th draw; the i-th sum includes it.
    """
    mean, weight, horizon = prior
    index = count + np.arange(1, draws.shape[-1] + 1)
    seen = weight + index - 1.0
    before = (total + weight * mean) + np.cumsum(draws, -1) - draws
    deviations = (draws - before / seen) ** 2
    after = squares + np.cumsum(deviations, -1)
    # A quarter of a draw of the largest variance, so that a pilot without variance does not stake without bound.
    earlier = np.concatenate((squares + 0.0 * draws[..., :1], after[..., :-1]), -1)
    counted = np.where(horizon > 0.0, horizon + 0.0 * index, index * np.log1p(index))
    scale = 2.0 * math.log(1.0 / alpha) * (seen + 0.25) / counted
    return np.sqrt(scale / (earlier + 0.0625)), after


def betting_lower_bound(
    draws: Array, counts: NDArray[np.int64], alpha: float, bets: Bets | None = None
) -> Array:
    """Largest m, up to 1e-6, at which the capital is seen to reach 1/alpha; 0 where there is none.

    Args:
        draws: (rows, n) in [0, 1].
        counts: (rows,) how many of each row's draws count.
        alpha: failure probability.
        bets: how to bet; by default equal shares, and stakes from the fresh draws alone.

    Returns:
        (rows,) lower confidence bounds of the means.
    """
    bounds = np.zeros(len(draws))
    rest = np.arange(len(draws))
    if bets is not None:
        solved, found = _bounds_at_limit(draws, counts, alpha, bets)
        bounds[solved] = found
        if solved.size:
            rest = np.delete(rest, solved)
            draws, counts, bets = draws[rest], counts[rest], bets.take(rest)
    pieces = [slice(i, min(i + _ROWS, rest.size)) for i in range(0, rest.size, _ROWS)]

    def solve(piece: slice) -> Array:
        capital = _DrawCapital(draws[piece], counts[piece], alpha, bets and bets.take(piece))
        return _largest_mean(capital, math.log(1.0 / alpha))

    cores = min(2, os.cpu_count() or 1)
    if len(pieces) < 2 or cores == 1:
        parts = [solve(piece) for piece in pieces]
    else:
        with ThreadPoolExecutor(cores) as pool:  # numpy releases the lock inside its loops
            parts = list(pool.map(solve, pieces))
    bounds[rest] = np.concatenate([np.zeros(0), *parts])
    return bounds


def _bounds_at_limit(
    draws: Array, counts: NDArray[np.int64], alpha: float, bets: Bets
) -> tuple[NDArray[np.intp], Array]:
    """Rows whose gamblers all stake their limits at the bound and everywhere above it, and the bounds of these."""
    relative = np.sqrt(bets.variance) / np.maximum(bets.mean, 1e-300)
    likely = np.flatnonzero(relative <= min(WIDE, math.sqrt(2.0 * math.log(1.0 / alpha) / draws.shape[1])))
    if not likely.size:
        return likely, np.empty(0)
    if likely.size < len(draws):
        draws, counts, bets = draws[likely], counts[likely], bets.take(likely)
    powers = PowerSums(draws, counts, few=bool((relative[likely] <= NARROW).all()))
    capital = LimitCapital(powers, FRACTIONS, bets.weights)
    pilot = bets.mean, bets.variance, bets.pilot_draws
    least = limit_mean(powers, pilot, bets.horizon, alpha, max(FRACTIONS))
    usable = capital.usable() & (least < powers.mean)
    bounds = _largest_mean(capital, math.log(1.0 / alpha), usable)
    # what was found, and so was verified, at a smaller mean would be of other stakes
    usable &= bounds >= least
    return likely[usable], bounds[usable]


class _Capital(Protocol):
    """Capitals of some rows of draws as functions of the mean that is bet against; they fall in it."""

    size: int
    sure: bool

    def first_guess(self, log_level: float) -> tuple[Array, Array]:
        """Means near the roots, and slopes of the log capital there."""

    def largest_log(self, rows: NDArray[np.intp], means: Array) -> Array:
        """Log of the largest capital so far of some rows."""


def _largest_mean(capital: _Capital, log_level: float, asked: NDArray[np.bool_] | None = None) -> Array:
    """The largest means (rows,) at which the log capital reaches the level, and is seen to; 0 where not asked.

    Secant steps inside a bracket, all rows side by side; the lower end is always a verified one.
    """
    low, high = np.zeros(capital.size), np.ones(capital.size)
    point, slope = capital.first_guess(log_level)
    if capital.sure:
        point = np.maximum(point - 0.3 * _TOLERANCE, point / 2.0)
    last_point, last_value = np.full_like(point, np.nan), np.full_like(point, np.nan)
    rows = np.arange(point.size) if asked is None else np.flatnonzero(asked)
    for step in range(100):
        here = point[rows]
        value = capital.largest_log(rows, here) - log_level - _ROUNDING
        reached = value >= 0.0
        low[rows[reached]], high[rows[~reached]] = here[reached], here[~reached]
        with np.errstate(invalid="ignore", divide="ignore"):
            secant = (value - last_value[rows]) / (here - last_point[rows])
        # The capital falls in m; where the last two points say otherwise, rounding is all that is left.
        slope[rows] = np.where(secant < 0.0, secant, slope[rows])
        last_point[rows], last_value[rows] = here, value
        ahead = -value / slope[rows]
        near = reached & (ahead <= _TOLERANCE) & (step > 0 or capital.sure)
        # Aim a little below the root, so that the last point is a verified one.
        goal = here + ahead - 0.3 * _TOLERANCE
        inner = (goal > low[rows]) & (goal < high[rows]) & (step < 20)
        point[rows] = np.where(inner, goal, (low[rows] + high[rows]) / 2.0)
        rows = rows[~near & (high[rows] - low[rows] > _TOLERANCE)]
        if not rows.size:
            break
    return low


class _DrawCapital:
    """The capital draw by draw; draws lie along the first axis, so that every loop runs over neighbours in memory."""

    sure = False

    def __init__(self, draws: Array, counts: NDArray[np.int64], alpha: float, bets: Bets | None) -> None:
        rows, n = draws.shape
        if bets is None:
            nothing = np.zeros((1, 1))
            sizes, _, _ = stakes(draws, alpha, nothing, nothing, nothing)
        else:
            sizes = bets.stakes(draws, alpha)
        self._weights = None if bets is None else bets.weights.T
        # A stake of 0 leaves the capital as it is: so are draws that do not count, and the padding.
        self._sizes, self._draws = np.zeros((2, n + -n % _BLOCK, rows))
        self._sizes[:n], self._draws[:n] = sizes.T, draws.T
        for row in np.flatnonzero(counts < n):
            self._sizes[counts[row] :, row] = self._draws[counts[row] :, row] = 0.0
        self._largest = self._sizes.max(axis=0)
        self._counts = counts
        self.size = rows

    def first_guess(self, log_level: float) -> tuple[Array, Array]:
        """A point near the root, and the slope of the log capital there.

        The gap to the mean is near the larger of mean ln(1/alpha)/n and sqrt(2 var ln(1/alpha)/n); the slope near
        minus the sum of the stakes.
        """
        means = self._draws.sum(axis=0) / self._counts
        squares = (self._draws**2).sum(axis=0) / self._counts
        spread = np.sqrt(np.maximum(squares - means**2, 0.0))
        rate = log_level / self._counts
        gap = 1.1 * np.hypot(means * rate, spread * np.sqrt(2.0 * rate))
        point = np.maximum(means - gap, means / (2.0 + log_level))
        point = np.clip(point, _TOLERANCE, 1.0 - _TOLERANCE)
        return point, -np.minimum(self._sizes, 0.95 / point).sum(axis=0) - 1.0

    def largest_log(self, rows: NDArray[np.intp], means: Array) -> Array:
        """Log of the largest mixed capital so far of some rows, each against its own mean."""
        everything = rows.size == self._counts.size
        sizes = self._sizes if everything else self._sizes[:, rows]
        draws = self._draws if everything else self._draws[:, rows]
        length, width = draws.shape
        # Two gamblers do the same where neither may stake less than it wants.
        free = [bool((f / means >= self._largest[rows]).all()) for f in FRACTIONS]
        logs = np.empty((len(FRACTIONS), length // _BLOCK, width))
        for start in range(0, length, _DRAWS):
            part = slice(start, min(start + _DRAWS, length))
            blocks = slice(part.start // _BLOCK, part.stop // _BLOCK)
            excess = draws[part] - means
            factors = np.empty_like(excess)
            for i, fraction in enumerate(FRACTIONS):
                if i and free[i - 1]:
                    logs[i, blocks] = logs[i - 1, blocks]
                    continue
                np.minimum(sizes[part], fraction / means, out=factors)
                factors *= excess
                factors += 1.0
                np.multiply.reduce(factors.reshape(-1, _BLOCK, width), axis=1, out=logs[i, blocks])
        np.log(logs, out=logs)
        np.cumsum(logs, axis=1, out=logs)
        top = logs.max(axis=0)
        logs -= top
        np.exp(logs, out=logs)
        if self._weights is None:
            mixed = top + np.log(logs.mean(axis=0))
        else:
            logs *= (self._weights if everything else self._weights[:, rows])[:, None, :]
            mixed = top + np.log(np.maximum(logs.sum(axis=0), 1e-300))
        return np.asarray(mixed.max(axis=0))
