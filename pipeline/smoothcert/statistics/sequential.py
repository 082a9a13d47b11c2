"""Sequential tests of many means at once: stop when a threshold is decided (docs/theory.md section 3.5)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smoothcert.statistics.betting import FRACTIONS, Array, Bets, primed_stakes, stakes

CERTIFIED, UNDECIDED, REFUTED = 1, 0, -1

_SLACK = 1e-9
"""Log capital that a decision needs beyond its threshold: floating point error of a sum of logarithms."""
_SMALLEST = 1e-300


class SequentialTest:
    """Running tests of "the mean is at least m0" for slots x tests, with capital in both directions.

    ``certified`` when the capital of the bet against "the mean is below m0" reaches 1/alpha: false with
    probability at most alpha, whatever the stopping rule (Ville's inequality). ``refuted`` when the opposite
    bet reaches 1/alpha_futility: work ends there, and nothing is claimed. A decision is final until the slot
    is reset.

    Draws are taken in their order, each stake using earlier draws only, so how draws are cut into updates
    changes nothing: a capital that crosses its threshold inside an update counts, at the moment when it
    crosses.

    Args:
        thresholds: (slots, tests) float64 m0. At most 0: certified at once, since scores are never negative.
            At least 1: refuted at once, since no evidence shows a mean of 1.
        alpha: failure probability of ``certified``; a number, or one per test.
        alpha_futility: that of ``refuted``.

    Attributes:
        decisions: (slots, tests) integers, 1 certified, 0 undecided, -1 refuted.
        log_e_values: (slots, tests) float64, log of the capital against "the mean is below m0" at the present
            time, frozen with the decision: the log of an e-value. Infinite for thresholds of at most 0
            (certain); -inf after a draw that is no number in [0, 1], which also leaves the test undecided for
            ever.

    Raises:
        ValueError: thresholds are NaN, not float64 or not two-dimensional, or a level is outside (0, 1).
    """

    def __init__(
        self, thresholds: Array, alpha: float | Sequence[float], alpha_futility: float = 0.01
    ) -> None:
        if thresholds.ndim != 2 or thresholds.dtype != np.float64:
            raise ValueError("thresholds must be a (slots, tests) array of float64")
        slots, tests = thresholds.shape
        levels = list(alpha) if isinstance(alpha, Sequence) else [alpha] * tests
        if len(levels) != tests or not all(0.0 < level < 1.0 for level in [*levels, alpha_futility]):
            raise ValueError(
                f"alpha={alpha} and alpha_futility={alpha_futility} must be in (0, 1), one per test"
            )
        # Stakes tuned to the strictest level; every level is valid with any stakes.
        self._alpha = min(levels, default=0.5)
        self._needed = np.array([math.log(1.0 / level) + _SLACK for level in levels])
        self._needed_futility = math.log(1.0 / alpha_futility) + _SLACK
        zeros = np.zeros_like(thresholds)
        self._thresholds = zeros.copy()
        # Draws so far, their sum, and the sum of their squared deviations.
        self._count, self._total, self._deviation = zeros.copy(), zeros.copy(), zeros.copy()
        # Log capital of every gambler, (fractions, slots, tests): above bets that the mean exceeds m0, below
        # that not.
        self._above = np.stack([zeros] * len(FRACTIONS))
        self._below = np.stack([zeros] * len(FRACTIONS))
        self.log_e_values = zeros.copy()
        self.decisions = np.zeros_like(thresholds, dtype=np.int64)
        # Pilot's mean, number of draws (0: no bets were chosen there), horizon and running squares, and the logarithms
        # of the gamblers' shares in thirds; None until bets are chosen somewhere.
        self._prior: list[Array] | None = None
        self._log_shares: Array | None = None
        self.reset(range(slots), thresholds)

    def reset(self, slots: Sequence[int], thresholds: Array, bets: Bets | None = None) -> None:
        """Start anew in some slots.

        Args:
            slots: which.
            thresholds: (len(slots), tests).
            bets: how to bet there, chosen on pilot draws, one row for each of the flattened (len(slots), tests); by
                default equal shares, and stakes from the fresh draws alone.

        Raises:
            ValueError: a threshold is NaN, or a shape does not fit.
        """
        rows = list(slots)
        shape = (len(rows), self._thresholds.shape[1])
        if thresholds.shape != shape:
            raise ValueError(f"thresholds {thresholds.shape} do not fit {shape}")
        if np.isnan(thresholds).any():
            raise ValueError("thresholds must not be NaN")
        if bets is not None and len(bets.mean) != shape[0] * shape[1]:
            raise ValueError(f"bets has {len(bets.mean)} rows; give one for each of the {shape} tests")
        self._thresholds[rows] = thresholds
        if bets is not None or self._prior is not None:
            self._prime(rows, shape, bets)
        for state in (self._count, self._total, self._deviation):
            state[rows] = 0.0
        self._above[:, rows] = 0.0
        self._below[:, rows] = 0.0
        certain = thresholds <= 0.0
        self.decisions[rows] = certain * CERTIFIED + (thresholds >= 1.0) * REFUTED
        self.log_e_values[rows] = np.where(certain, math.inf, 0.0)

    def update(self, scores: NDArray[np.floating], *, slots: Sequence[int], counts: ArrayLike) -> None:
        """Feed the next draws of some slots.

        Args:
            scores: (len(slots), n, tests) in [0, 1], in order.
            slots: which slots, each at most once.
            counts: (len(slots),) how many of the n draws count; the rest is ignored, whatever it is.

        Raises:
            ValueError: shapes do not fit, a slot comes twice, or a count is not in 0..n.
        """
        rows, counted = list(slots), np.asarray(counts, dtype=np.int64)
        shape = (len(rows), scores.shape[1], self._thresholds.shape[1])
        if scores.shape != shape or counted.shape != (len(rows),):
            raise ValueError(f"scores {scores.shape} and {counted.size} counts do not fit {shape}")
        if len(set(rows)) < len(rows):
            raise ValueError(f"slots={rows} names a slot twice; its draws would overwrite each other")
        if ((counted < 0) | (counted > shape[1])).any():
            raise ValueError(f"counts={counted.tolist()} must be between 0 and {shape[1]}, the draws given")
        if 0 in shape:
            return
        # Sums and logarithms need all digits, whatever the scores come in.
        used = counted[:, None, None].astype(np.float64)
        inside = np.arange(shape[1]) < used
        draws = np.moveaxis(scores.astype(np.float64), 1, -1)
        # What is not a score poisons the capital, and NaN never compares as large enough.
        draws = np.where((draws >= 0.0) & (draws <= 1.0), draws, math.nan)
        draws = np.where(inside, draws, 0.5)
        sizes, totals, deviations = stakes(
            draws,
            self._alpha,
            self._count[rows][..., None],
            self._total[rows][..., None],
            self._deviation[rows][..., None],
        )
        if self._prior is not None:
            sizes, squares = self._primed(rows, draws, sizes)
        sizes = np.where(inside, sizes, 0.0)
        above, below = self._capitals(rows, draws, sizes)
        last = np.broadcast_to(np.clip(counted - 1, 0, None)[:, None], (shape[0], shape[2]))
        if self._log_shares is None:
            self._decide(rows, _log_mean(above), _log_mean(below))
        else:
            shares = self._log_shares[:, rows][..., None]
            self._decide(rows, _log_mean(above + shares), _log_mean(below + shares))
        some = used[..., 0] > 0.0
        for state, values in ((self._total, totals), (self._deviation, deviations)):
            state[rows] = np.where(some, _take(values, last), state[rows])
        if self._prior is not None:
            self._prior[3][rows] = np.where(some, _take(squares, last), self._prior[3][rows])
        self._count[rows] = self._count[rows] + used[..., 0]
        self._above[:, rows] = above[..., -1]
        self._below[:, rows] = below[..., -1]

    def _prime(self, rows: list[int], shape: tuple[int, int], bets: Bets | None) -> None:
        """Take over what the pilot showed in some slots, or forget it."""
        if self._prior is None:
            self._prior = [np.zeros_like(self._thresholds) for _ in range(4)]
            self._log_shares = np.zeros_like(self._above)
        assert self._log_shares is not None
        for state in self._prior:
            state[rows] = 0.0
        self._log_shares[:, rows] = 0.0
        if bets is None:
            return
        horizon = float(bets.horizon or 0)
        values = [
            np.asarray(v) for v in (bets.mean, bets.pilot_draws, horizon, bets.pilot_draws * bets.variance)
        ]
        for state, value in zip(self._prior, values, strict=True):
            state[rows] = np.broadcast_to(value, shape[0] * shape[1]).reshape(shape)
        with np.errstate(divide="ignore"):
            shares = np.log(len(FRACTIONS) * bets.weights.T).reshape(len(FRACTIONS), *shape)
        self._log_shares[:, rows] = shares

    def _primed(self, rows: list[int], draws: Array, sizes: Array) -> tuple[Array, Array]:
        """Stakes with the pilot's in the tests that have them, and the squares after each draw."""
        assert self._prior is not None
        mean, weight, horizon, squares = (state[rows][..., None] for state in self._prior)
        own, after = primed_stakes(
            draws,
            self._alpha,
            (mean, np.clip(weight, 1.0, None), horizon),
            self._count[rows][..., None],
            self._total[rows][..., None],
            squares,
        )
        return np.where(weight > 0.0, own, sizes), after

    def _capitals(self, rows: list[int], draws: Array, sizes: Array) -> tuple[Array, Array]:
        """Log capital of every gambler after every draw, (fractions, rows, tests, n), in both directions."""
        threshold = self._thresholds[rows][..., None]
        from_below = np.clip(threshold, _SMALLEST, 1.0)
        from_above = np.clip(1.0 - threshold, _SMALLEST, 1.0)
        excess = draws - np.clip(threshold, 0.0, 1.0)
        above = np.stack([np.log1p(np.minimum(sizes, c / from_below) * excess) for c in FRACTIONS])
        below = np.stack([np.log1p(-np.minimum(sizes, c / from_above) * excess) for c in FRACTIONS])
        return (
            self._above[:, rows][..., None] + np.cumsum(above, -1),
            self._below[:, rows][..., None] + np.cumsum(below, -1),
        )

    def _decide(self, rows: list[int], log_above: Array, log_below: Array) -> None:
        """Decide by the first crossing inside the update, and freeze what is decided."""
        n = log_above.shape[-1]
        steps = np.arange(n)
        first_up = np.amin(np.where(log_above >= self._needed[:, None], steps, n), -1)
        first_down = np.amin(np.where(log_below >= self._needed_futility, steps, n), -1)
        undecided = self.decisions[rows] == UNDECIDED
        up = undecided & (first_up < n) & (first_up <= first_down)
        down = undecided & (first_down < first_up)
        moment = np.minimum(first_up, first_down)
        value = _take(log_above, np.clip(moment, 0, n - 1))
        value = np.where(value == value, value, -math.inf)
        self.log_e_values[rows] = np.where(undecided, value, self.log_e_values[rows])
        self.decisions[rows] = np.where(up, CERTIFIED, np.where(down, REFUTED, self.decisions[rows]))


def _take(values: Array, index: NDArray[np.int64]) -> Array:
    """Entry ``index[r, t]`` along the last axis of ``values[r, t]``."""
    return np.take_along_axis(values, index[..., None], -1)[..., 0]


def _log_mean(logs: Array) -> Array:
    """Log of the mean of exp over the first axis."""
    top = np.amax(logs, 0)
    found: Array = top + np.log(np.mean(np.exp(logs - top), 0))
    return found
