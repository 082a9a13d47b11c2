"""Betting on a bounded mean: stakes, capital, and the lower confidence bound that follows.

To bound E[Y] from below, one bets against "the mean is at most m": the capital

    K_t(m) = average over c of prod_{i <= t} (1 + lambda_i(m) (Y_i - m)),   lambda_i(m) = min(stake_i, c/m)

is a non-negative supermartingale if the mean is at most m, so it reaches 1/alpha at any time with probability
at most alpha (Ville). Stakes use earlier draws only. K falls in m, so the m whose capital has reached 1/alpha
at some time so far form an interval from 0: its end is the bound, valid at every stopping time (Waudby-Smith
and Ramdas 2023, arXiv 2010.09686; docs/theory.md section 3.4). Looking at the largest capital so far,
instead of the last one, is free: Ville bounds the supremum.

The stakes are computed for numpy arrays and for torch tensors alike; torch is never imported here.
"""

from __future__ import annotations

import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


def array_module(array: Any) -> Any:
    """Numpy or torch, whichever the array is of."""
    return sys.modules[type(array).__module__.partition(".")[0]]


def stakes(draws: Any, alpha: float, count: Any, total: Any, deviation: Any) -> tuple[Any, Any, Any]:
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
    xp = array_module(draws)
    steps = xp.arange(1, draws.shape[-1] + 1, dtype=draws.dtype)
    if xp is not np:
        steps = steps.to(draws.device)
    index = count + steps
    totals = total + xp.cumsum(draws, -1)
    means = (0.5 + totals) / (index + 1.0)
    deviations = deviation + xp.cumsum((draws - means) ** 2, -1)
    # i times the variance before the i-th draw: 1/4 + sum over earlier ones
    earlier = xp.concatenate((deviation + 0.0 * draws[..., :1], deviations[..., :-1]), -1)
    sizes = xp.sqrt((2.0 * math.log(1.0 / alpha) / xp.log1p(index)) / (earlier + 0.25))
    return sizes, totals, deviations


def betting_lower_bound(draws: Array, counts: NDArray[np.int64], alpha: float) -> Array:
    """Largest m, up to 1e-6, at which the capital is seen to reach 1/alpha; 0 where there is none.

    Args:
        draws: (rows, n) in [0, 1].
        counts: (rows,) how many of each row's draws count.
        alpha: failure probability.

    Returns:
        (rows,) lower confidence bounds of the means.
    """
    rows = len(draws)
    pieces = [slice(i, min(i + _ROWS, rows)) for i in range(0, rows, _ROWS)]

    def solve(piece: slice) -> Array:
        return _Piece(draws[piece], counts[piece], alpha).solve()

    cores = min(2, os.cpu_count() or 1)
    if len(pieces) < 2 or cores == 1:
        return np.concatenate([np.zeros(0), *map(solve, pieces)])
    with ThreadPoolExecutor(cores) as pool:  # numpy releases the lock inside its loops
        return np.concatenate(list(pool.map(solve, pieces)))


class _Piece:
    """Some rows; draws lie along the first axis, so that every loop runs over neighbours in memory."""

    def __init__(self, draws: Array, counts: NDArray[np.int64], alpha: float) -> None:
        rows, n = draws.shape
        nothing = np.zeros((1, 1))
        sizes, _, _ = stakes(draws, alpha, nothing, nothing, nothing)
        inside = np.arange(n) < counts[:, None]
        # A stake of 0 leaves the capital as it is: so are draws that do not count, and the padding.
        padding = ((0, -n % _BLOCK), (0, 0))
        self._sizes = np.pad(np.where(inside, sizes, 0.0).T, padding)
        self._draws = np.pad(np.where(inside, draws, 0.0).T, padding)
        self._counts = counts
        self._log_level = math.log(1.0 / alpha)

    def solve(self) -> Array:
        """Secant steps inside a bracket, all rows side by side; the lower end is always a verified one."""
        low, high = np.zeros(self._counts.size), np.ones(self._counts.size)
        point, slope = self._first_guess()
        last_point, last_value = np.full_like(point, np.nan), np.full_like(point, np.nan)
        rows = np.arange(point.size)
        for step in range(100):
            here = point[rows]
            value = self._largest_log_capital(rows, here) - self._log_level - _ROUNDING
            reached = value >= 0.0
            low[rows[reached]], high[rows[~reached]] = here[reached], here[~reached]
            with np.errstate(invalid="ignore", divide="ignore"):
                secant = (value - last_value[rows]) / (here - last_point[rows])
            # The capital falls in m; where the last two points say otherwise, rounding is all that is left.
            slope[rows] = np.where(secant < 0.0, secant, slope[rows])
            last_point[rows], last_value[rows] = here, value
            ahead = -value / slope[rows]
            near = reached & (ahead <= _TOLERANCE) & (step > 0)
            # Aim a little below the root, so that the last point is a verified one.
            goal = here + ahead - 0.3 * _TOLERANCE
            inner = (goal > low[rows]) & (goal < high[rows]) & (step < 20)
            point[rows] = np.where(inner, goal, (low[rows] + high[rows]) / 2.0)
            rows = rows[~near & (high[rows] - low[rows] > _TOLERANCE)]
            if not rows.size:
                break
        return low

    def _first_guess(self) -> tuple[Array, Array]:
        """A point near the root, and the slope of the log capital there.

        The gap to the mean is near ln(1/alpha)/n + sqrt(2 var ln(1/alpha)/n); the slope near minus the sum of
        the stakes.
        """
        means = self._draws.sum(axis=0) / self._counts
        squares = (self._draws**2).sum(axis=0) / self._counts
        spread = np.sqrt(np.maximum(squares - means**2, 0.0))
        rate = self._log_level / self._counts
        gap = 1.1 * rate + spread * np.sqrt(2.0 * rate)
        point = np.maximum(means - gap, means / (2.0 + self._log_level))
        point = np.clip(point, _TOLERANCE, 1.0 - _TOLERANCE)
        return point, -np.minimum(self._sizes, 0.95 / point).sum(axis=0) - 1.0

    def _largest_log_capital(self, rows: NDArray[np.intp], means: Array) -> Array:
        """Log of the largest mixed capital so far of some rows, each against its own mean."""
        everything = rows.size == self._counts.size
        sizes = self._sizes if everything else self._sizes[:, rows]
        draws = self._draws if everything else self._draws[:, rows]
        length, width = draws.shape
        logs = np.empty((len(FRACTIONS), length // _BLOCK, width))
        for start in range(0, length, _DRAWS):
            part = slice(start, min(start + _DRAWS, length))
            blocks = slice(part.start // _BLOCK, part.stop // _BLOCK)
            excess = draws[part] - means
            factors = np.empty_like(excess)
            for gambler, fraction in zip(logs, FRACTIONS, strict=True):
                np.minimum(sizes[part], fraction / means, out=factors)
                factors *= excess
                factors += 1.0
                np.multiply.reduce(factors.reshape(-1, _BLOCK, width), axis=1, out=gambler[blocks])
        np.log(logs, out=logs)
        np.cumsum(logs, axis=1, out=logs)
        top = logs.max(axis=0)
        logs -= top
        np.exp(logs, out=logs)
        mixed = top + np.log(logs.mean(axis=0))
        return np.asarray(mixed.max(axis=0))
