"""Betting on a bounded mean: stakes, capital, and the lower confidence bound that follows.

To bound E[Y] from below, one bets against "the mean is at most m": the capital

    K_t(m) = average over c of prod_{i <= t} (1 + lambda_i(m) (Y_i - m)),   lambda_i(m) = min(stake_i, c/m)

is a non-negative supermartingale if the mean is at most m, so it reaches 1/alpha at any time with probability at most
alpha (Ville). Stakes use earlier draws only. K falls in m, so the m with K_t(m) < 1/alpha are a half line: its end is
the bound, valid at every stopping time (Waudby-Smith and Ramdas 2023, arXiv 2010.09686; theory.md 3).

The stakes are computed for numpy arrays and for torch tensors alike; torch is never imported here.
"""

from __future__ import annotations

import math
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FRACTIONS = (0.5, 0.9, 0.99)
"""The shares c of what could be lost at once that the three mixed gamblers stake at most."""

_TOLERANCE = 1e-7
"""The bound returned is at most this far below the exact root, never above it."""
_ROUNDING = 1e-9
"""The log capital must exceed its threshold by this much: floating point error of sums of logarithms."""
_BLOCK = 8
"""Factors multiplied before a logarithm is taken. A factor is in [0.01, 1e12], so a block can not overflow."""
_ROWS = 128
"""Rows worked on at once: stays in the cache, and gives the threads pieces."""


def array_module(array: Any) -> Any:
    """numpy or torch, whichever the array is of."""
    return sys.modules[type(array).__module__.partition(".")[0]]


def stakes(draws: Any, alpha: float, count: Any, total: Any, deviation: Any) -> tuple[Any, Any, Any]:
    """Predictable stakes for the next draws, and the sums after each of them.

    Args:
        draws: (..., n), in [0, 1], the draws in order along the last axis.
        alpha: level for which the stakes are tuned; any value keeps the capital valid.
        count: (..., 1) draws seen before.
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
    # variance before the i-th draw: (1/4 + sum over earlier ones) / i
    earlier = xp.concatenate((deviation + 0.0 * draws[..., :1], deviations[..., :-1]), -1)
    variance = (0.25 + earlier) / index
    sizes = xp.sqrt(2.0 * math.log(1.0 / alpha) / (variance * index * xp.log1p(index)))
    return sizes, totals, deviations


def betting_lower_bound(draws: Array, counts: NDArray[np.int64], alpha: float) -> Array:
    """Largest m, up to 1e-7, at which the capital is seen to reach 1/alpha; 0 where there is none.

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
        return _solve(draws[piece], counts[piece], alpha)

    if len(pieces) == 1:
        return solve(pieces[0])
    with ThreadPoolExecutor(2) as pool:  # numpy releases the lock inside its loops
        return np.concatenate(list(pool.map(solve, pieces)))


def _solve(draws: Array, counts: NDArray[np.int64], alpha: float) -> Array:
    rows, n = draws.shape
    nothing = np.zeros((rows, 1))
    sizes, _, _ = stakes(draws, alpha, nothing, nothing, nothing)
    beyond = np.arange(n) >= counts[:, None]
    sizes = np.where(beyond, 0.0, sizes)
    padding = -n % _BLOCK
    if padding:
        sizes = np.pad(sizes, ((0, 0), (0, padding)))
        draws = np.pad(draws, ((0, 0), (0, padding)))
    needed = math.log(1.0 / alpha) + _ROUNDING
    low, high = np.zeros(rows), np.ones(rows)
    low_value = np.full(rows, np.inf)
    high_value = np.full(rows, -np.inf)
    means = np.where(beyond, 0.0, draws[:, :n]).sum(axis=1) / counts
    # the gap is about ln(1/alpha)/n + sqrt(2 var ln(1/alpha)/n): a first guess inside the bracket
    spread = np.sqrt(np.maximum(np.where(beyond, 0.0, draws[:, :n] ** 2).sum(axis=1) / counts - means**2, 0.0))
    log_level = math.log(1.0 / alpha)
    guess = means - 1.1 * log_level / counts - spread * np.sqrt(2.0 * log_level / counts)
    active = np.arange(rows)
    for step in range(100):
        point = np.where(
            (guess > low) & (guess < high), guess, (low + high) / 2.0
        )[active]
        value = _log_capital(draws[active], sizes[active], point) - needed
        reached = value >= 0.0
        up, down = active[reached], active[~reached]
        low[up], low_value[up] = point[reached], value[reached]
        high[down], high_value[down] = point[~reached], value[~reached]
        active = active[high[active] - low[active] > _TOLERANCE]
        if not len(active):
            break
        guess = _next_guess(low, high, low_value, high_value, step)
    return low


def _next_guess(low: Array, high: Array, low_value: Array, high_value: Array, step: int) -> Array:
    """Secant between the ends, nudged so that the bracket closes from both sides; every third step halves."""
    if step % 3 == 2:
        return (low + high) / 2.0
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        secant = low + (high - low) * low_value / (low_value - high_value)
    finite = np.isfinite(secant)
    shift = 0.4 * _TOLERANCE * (1 if step % 3 else -1)
    return np.where(finite, secant + shift, (low + high) / 2.0)


def _log_capital(draws: Array, sizes: Array, means: Array) -> Array:
    """Log of the mixed capital of each row against its own mean."""
    excess = draws - means[:, None]
    logs = []
    with np.errstate(divide="ignore"):
        caps = [c / means[:, None] for c in FRACTIONS]
    for cap in caps:
        factors = np.minimum(sizes, cap)
        factors *= excess
        factors += 1.0
        blocks = factors.reshape(len(draws), -1, _BLOCK).prod(axis=2)
        logs.append(np.log(blocks).sum(axis=1))
    stacked = np.array(logs)
    top = stacked.max(axis=0)
    mixed: Array = top + np.log(np.exp(stacked - top).mean(axis=0))
    return mixed
