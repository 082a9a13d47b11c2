"""The capital of gamblers who all stake the most they may, from sums of powers of the draws (docs/theory.md 3.4).

Scores of a projection in many dimensions vary little, so that the stakes that suit them are beyond their limit c/m, and
every gambler stakes that limit in every draw:

    log K_t(m) = sum over i <= t of log(1 - c + c Y_i / m)

About the mean of the draws the logarithm is a power series in their deviations. Its sums over the first 8, 16, ...
draws are had once, and then the capital at any m costs an eighth of a pass over the draws. What the series leaves out
is bounded, so that the logarithm is rounded down: such a bound of a mean is at most the one that every draw by itself
gives, and by less than the solver's tolerance below it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_BLOCK = 8
_ROWS = 64
"""Rows worked on at once: they stay in the cache."""
NARROW, WIDE = 0.03, 0.08
"""Standard deviations, in parts of the mean, up to which few powers are enough, and up to which many are."""
_WIDEST = 0.5
"""Largest deviation, in parts of the mean, at which the series is used."""
_LOST = 2e-7
"""So much of a bound, at most, may be lost to what the series leaves out."""
_NEWTON_STEPS = 3
_SMALLEST = 1e-30
"""In place of a mean of 0, which has no such bound: its sixth power is still a number above 0."""


class PowerSums:
    """Sums of the first powers of each row's deviations from its mean, over its first 8, 16, ... draws.

    Args:
        draws: (rows, n) in [0, 1].
        counts: (rows,) how many of each row's draws count, at least 1.
        few: whether four powers are enough, not six.

    Attributes:
        mean: (rows,) of the draws that count.
        counts: (rows, blocks) how many draws each sum is over.
        sums: (4 or 6, rows, blocks) of the deviations' powers, from the first on.
        widest: (rows,) the largest deviation.
    """

    def __init__(self, draws: Array, counts: NDArray[np.int64], *, few: bool) -> None:
        rows, n = draws.shape
        blocks = -(-n // _BLOCK)
        ragged = bool((counts < n).any())
        self.mean = np.empty(rows)
        self.widest = np.empty(rows)
        self.sums = np.empty((4 if few else 6, rows, blocks))
        self.counts = np.minimum(_BLOCK * np.arange(1.0, blocks + 1.0), counts[:, None])
        ones = np.ones(_BLOCK)
        for start in range(0, rows, _ROWS):
            part = slice(start, min(start + _ROWS, rows))
            here, used = draws[part], counts[part]
            if ragged:
                inside = np.arange(n) < used[:, None]
                here = np.where(inside, here, 0.0)
            mean = here.sum(axis=1) / used
            away = np.zeros((len(used), blocks * _BLOCK))
            np.subtract(here, mean[:, None], out=away[:, :n])
            if ragged:
                away[:, :n] *= inside
            self.mean[part] = mean
            self.widest[part] = np.maximum(away.max(axis=1), -away.min(axis=1))
            first = away.reshape(len(used), blocks, _BLOCK)
            second = first * first
            self.sums[0, part] = first @ ones
            self.sums[1, part] = second @ ones
            np.einsum("rbk,rbk->rb", second, first, out=self.sums[2, part])
            np.einsum("rbk,rbk->rb", second, second, out=self.sums[3, part])
            if not few:
                third = np.multiply(second, first, out=first)
                np.einsum("rbk,rbk->rb", third, second, out=self.sums[4, part])
                np.einsum("rbk,rbk->rb", third, third, out=self.sums[5, part])
        np.cumsum(self.sums, axis=2, out=self.sums)


def limit_mean(
    powers: PowerSums, pilot: tuple[Array, Array, int], horizon: int | None, alpha: float, fraction: float
) -> Array:
    """(rows,) the least m from which on the stakes that suit the draws are at least fraction/m in every draw.

    Every stake is bounded from below, a block at a time. Its squared deviations are from running means, and with s
    draws before, (Y - mean)^2 is (s+1)/s times what the draw adds to the sum of squares about the mean of all.

    Args:
        powers: of the draws.
        pilot: means and variances (rows,) of the pilot's scores, and how many there are.
        horizon: draws that the stakes are tuned to; None for stakes that suit any time.
        alpha: level for which they are tuned.
        fraction: c in (0, 1).
    """
    pilot_mean, variance, pilot_draws = pilot
    weight = float(pilot_draws)
    moved = (pilot_mean - powers.mean)[:, None]
    own = weight * variance[:, None]
    total = weight * moved + powers.sums[0]
    square = own + weight * moved**2 + powers.sums[1]
    added = np.maximum(square - total**2 / (weight + powers.counts) - own, 0.0)
    earlier = own + (1.0 + 1.0 / weight) * added
    ends = _BLOCK * np.arange(1.0, powers.counts.shape[1] + 1.0)
    counted = ends * np.log1p(ends) if horizon is None else np.float64(horizon)
    scale = 2.0 * math.log(1.0 / alpha) * (weight + ends - _BLOCK + 0.25) / counted
    least = np.sqrt((scale / (earlier + 0.0625)).min(axis=1))
    return np.asarray(fraction / least * (1.0 + 1e-9))


class LimitCapital:
    """The mixed capital of gamblers at their limits, some rows side by side.

    Args:
        powers: of the draws.
        fractions: c of the g gamblers.
        weights: (rows, g) shares of the capital that they start with.
    """

    sure = True
    """The first guess and its slope are as good as any."""

    def __init__(self, powers: PowerSums, fractions: tuple[float, ...], weights: Array) -> None:
        self.size = len(powers.mean)
        self._powers = powers
        self._fractions = np.array(fractions)[:, None]
        with np.errstate(divide="ignore"):
            self._log_weights = np.log(weights.T)
        self._mean = np.maximum(powers.mean, _SMALLEST)
        self._last = len(powers.sums)
        share = np.minimum(powers.widest / self._mean, _WIDEST)
        self._beyond = share / ((self._last + 1.0) * (1.0 - share))

    def usable(self) -> NDArray[np.bool_]:
        """(rows,) whether the series leaves out next to nothing."""
        lost = self._beyond * self._powers.sums[-1, :, -1] / self._mean**self._last
        slope = self._powers.counts[:, -1] / self._mean
        return np.asarray((self._powers.widest <= _WIDEST * self._mean) & (lost <= _LOST * slope))

    def first_guess(self, log_level: float) -> tuple[Array, Array]:
        """Means and slopes (rows,) where the capital of all draws reaches the level."""
        rows = np.arange(self.size)
        counts, last = self._powers.counts[:, -1:], self._powers.sums[:, :, -1:]
        number, scatter = counts[:, 0], last[1, :, 0] / self._mean**2
        point = self._mean * np.exp(-(log_level + scatter / 2.0) / number)
        for _ in range(_NEWTON_STEPS):
            logs, size = self._logs(rows, point, counts, last)
            top = logs.max(axis=0)
            share = np.exp(logs - top)
            whole = share.sum(axis=0)
            value = (top + np.log(whole))[:, 0] - log_level
            # d/dm log(1 - c + c Y/m), to the first order of what the draws deviate
            slope = -np.maximum(
                number * self._mean / point * np.sum(share[..., 0] * size, axis=0) / whole[:, 0], 0.1
            )
            point = np.clip(point - value / slope, 0.1 * point, self._mean)
        return point, slope

    def largest_log(self, rows: NDArray[np.intp], means: Array) -> Array:
        """Log of the largest mixed capital so far of some rows, each against its own mean; rounded down."""
        everything = rows.size == self.size
        counts = self._powers.counts if everything else self._powers.counts[rows]
        sums = self._powers.sums if everything else self._powers.sums[:, rows]
        logs, _ = self._logs(rows, means, counts, sums)
        top = logs.max(axis=0)
        logs -= top
        np.exp(logs, out=logs)
        mixed = np.log(logs.sum(axis=0))
        mixed += top
        return np.asarray(mixed.max(axis=1))

    def _logs(self, rows: NDArray[np.intp], means: Array, counts: Array, sums: Array) -> tuple[Array, Array]:
        """Log capitals (g, rows, blocks) with their shares, and what deviations are multiplied by, (g, rows).

        With |x| <= s and even p, log(1+x) >= x - x^2/2 + ... - x^p (1/p + s/((p+1)(1-s))).
        """
        middle = 1.0 - self._fractions + self._fractions * self._mean[rows] / means
        size = self._fractions / means / middle
        each = size[..., None]
        series = sums[-1] * (-(1.0 / self._last + self._beyond[rows]) * size)[..., None]
        for power in range(self._last - 2, -1, -1):
            series += sums[power] * ((-1.0) ** power / (power + 1.0))
            series *= each
        series += counts * np.log(middle)[..., None]
        series += self._log_weights[:, rows, None]
        return series, size
