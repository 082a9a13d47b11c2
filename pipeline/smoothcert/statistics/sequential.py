"""Sequential tests of many means at once: stop when a threshold is decided (docs/theory.md section 3.5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from smoothcert.statistics.betting import FRACTIONS, Bets, array_module, primed_stakes, stakes

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

    Works on float64 numpy arrays and torch tensors. The state lives on the device of ``thresholds``: as tensors
    on an accelerator, as numpy arrays in main memory (where torch would spend more on starting its many small
    operations than on the numbers).

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

    def __init__(self, thresholds: Any, alpha: float | Sequence[float], alpha_futility: float = 0.01) -> None:
        thresholds = _unwrap(thresholds)
        xp = self._xp = array_module(thresholds)
        if thresholds.ndim != 2 or thresholds.dtype != xp.float64:
            raise ValueError("thresholds must be a (slots, tests) array of float64")
        slots, tests = thresholds.shape
        levels = list(alpha) if isinstance(alpha, Sequence) else [alpha] * tests
        if len(levels) != tests or not all(0.0 < level < 1.0 for level in [*levels, alpha_futility]):
            raise ValueError(
                f"alpha={alpha} and alpha_futility={alpha_futility} must be in (0, 1), one per test"
            )
        # Stakes tuned to the strictest level; every level is valid with any stakes.
        self._alpha = min(levels, default=0.5)
        self._needed = self._like(thresholds, [math.log(1.0 / level) + _SLACK for level in levels])
        self._needed_futility = math.log(1.0 / alpha_futility) + _SLACK
        zeros = xp.zeros_like(thresholds)
        self._thresholds = zeros + 0.0
        # Draws so far, their sum, and the sum of their squared deviations.
        self._count, self._total, self._deviation = zeros + 0.0, zeros + 0.0, zeros + 0.0
        # Log capital of every gambler, (fractions, slots, tests): above bets that the mean exceeds m0, below
        # that not.
        self._above = xp.stack([zeros] * len(FRACTIONS))
        self._below = xp.stack([zeros] * len(FRACTIONS))
        self.log_e_values = zeros + 0.0
        self.decisions = xp.zeros_like(thresholds, dtype=xp.int64)
        # Pilot's mean, number of draws (0: no bets were chosen there), horizon and running squares, and the logarithms
        # of the gamblers' shares in thirds; None until bets are chosen somewhere.
        self._prior: list[Any] | None = None
        self._log_shares: Any = None
        self.reset(range(slots), thresholds)

    def reset(self, slots: Sequence[int], thresholds: Any, bets: Bets | None = None) -> None:
        """Start anew in some slots.

        Args:
            slots: which.
            thresholds: (len(slots), tests).
            bets: how to bet there, chosen on pilot draws, one row for each of the flattened (len(slots), tests); by
                default equal shares, and stakes from the fresh draws alone.

        Raises:
            ValueError: a threshold is NaN, or a shape does not fit.
        """
        rows, thresholds = list(slots), _unwrap(thresholds)
        shape = (len(rows), self._thresholds.shape[1])
        if tuple(thresholds.shape) != shape:
            raise ValueError(f"thresholds {tuple(thresholds.shape)} do not fit {shape}")
        if not bool((thresholds == thresholds).all()):
            raise ValueError("thresholds must not be NaN")
        if bets is not None and len(bets.mean) != shape[0] * shape[1]:
            raise ValueError(f"bets has {len(bets.mean)} rows; give one for each of the {shape} tests")
        self._thresholds[rows] = thresholds
        if bets is not None or self._prior is not None:
            self._prime(rows, shape, bets)
        for state in (self._count, self._total, self._deviation, self.log_e_values, self.decisions):
            state[rows] = 0
        self._above[:, rows] = 0.0
        self._below[:, rows] = 0.0
        certain = thresholds <= 0.0
        self.decisions[rows] = certain * CERTIFIED + (thresholds >= 1.0) * REFUTED
        self.log_e_values[rows] = self._xp.where(certain, self._like(thresholds, math.inf), 0.0)

    def update(self, scores: Any, *, slots: Sequence[int], counts: Any) -> None:
        """Feed the next draws of some slots.

        Args:
            scores: (len(slots), n, tests) in [0, 1], in order.
            slots: which slots, each at most once.
            counts: (len(slots),) how many of the n draws count; the rest is ignored, whatever it is.

        Raises:
            ValueError: shapes do not fit, a slot comes twice, or a count is not in 0..n.
        """
        xp, rows, scores = self._xp, list(slots), _unwrap(scores)
        shape = (len(rows), scores.shape[1], self._thresholds.shape[1])
        if tuple(scores.shape) != shape or len(counts) != len(rows):
            raise ValueError(f"scores {tuple(scores.shape)} and {len(counts)} counts do not fit {shape}")
        if len(set(rows)) < len(rows):
            raise ValueError(f"slots={rows} names a slot twice; its draws would overwrite each other")
        counted = [int(count) for count in counts]
        if any(not 0 <= count <= shape[1] for count in counted):
            raise ValueError(f"counts={counted} must be between 0 and {shape[1]}, the draws given")
        if 0 in shape:
            return
        # Sums and logarithms need all digits, whatever the scores come in.
        scores = scores.astype(np.float64) if xp is np else scores.to(xp.float64)
        steps = self._like(scores, range(shape[1]))
        used = self._like(scores, counted)[:, None, None]
        inside = steps < used
        draws = xp.moveaxis(scores, 1, -1)
        # What is not a score poisons the capital, and NaN never compares as large enough.
        draws = xp.where((draws >= 0.0) & (draws <= 1.0), draws, math.nan)
        draws = xp.where(inside, draws, 0.5)
        sizes, totals, deviations = stakes(
            draws,
            self._alpha,
            self._count[rows][..., None],
            self._total[rows][..., None],
            self._deviation[rows][..., None],
        )
        if self._prior is not None:
            sizes, squares = self._primed(rows, draws, sizes)
        sizes = xp.where(inside, sizes, 0.0)
        above, below = self._capitals(rows, draws, sizes)
        last = xp.clip(used[..., 0] - 1.0, 0.0, None) + self._like(scores, [0.0] * shape[2])
        if self._log_shares is None:
            self._decide(rows, _log_mean(xp, above), _log_mean(xp, below))
        else:
            shares = self._log_shares[:, rows][..., None]
            self._decide(rows, _log_mean(xp, above + shares), _log_mean(xp, below + shares))
        some = used[..., 0] > 0.0
        for state, values in ((self._total, totals), (self._deviation, deviations)):
            state[rows] = xp.where(some, self._take(values, last), state[rows])
        if self._prior is not None:
            self._prior[3][rows] = xp.where(some, self._take(squares, last), self._prior[3][rows])
        self._count[rows] = self._count[rows] + used[..., 0]
        self._above[:, rows] = above[..., -1]
        self._below[:, rows] = below[..., -1]

    def _prime(self, rows: list[int], shape: tuple[int, int], bets: Bets | None) -> None:
        """Take over what the pilot showed in some slots, or forget it."""
        if self._prior is None:
            self._prior = [self._thresholds * 0.0 for _ in range(4)]
            self._log_shares = self._xp.stack([self._thresholds * 0.0] * len(FRACTIONS))
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
            state[rows] = self._like(
                self._thresholds, np.broadcast_to(value, shape[0] * shape[1]).reshape(shape)
            )
        with np.errstate(divide="ignore"):
            shares = np.log(len(FRACTIONS) * bets.weights.T).reshape(len(FRACTIONS), *shape)
        self._log_shares[:, rows] = self._like(self._thresholds, shares)

    def _primed(self, rows: list[int], draws: Any, sizes: Any) -> tuple[Any, Any]:
        """Stakes with the pilot's in the tests that have them, and the squares after each draw."""
        assert self._prior is not None
        xp = self._xp
        mean, weight, horizon, squares = (state[rows][..., None] for state in self._prior)
        own, after = primed_stakes(
            draws,
            self._alpha,
            (mean, xp.clip(weight, 1.0, None), horizon),
            self._count[rows][..., None],
            self._total[rows][..., None],
            squares,
        )
        return xp.where(weight > 0.0, own, sizes), after

    def _capitals(self, rows: list[int], draws: Any, sizes: Any) -> tuple[Any, Any]:
        """Log capital of every gambler after every draw, (fractions, rows, tests, n), in both directions."""
        xp = self._xp
        threshold = self._thresholds[rows][..., None]
        from_below = xp.clip(threshold, _SMALLEST, 1.0)
        from_above = xp.clip(1.0 - threshold, _SMALLEST, 1.0)
        excess = draws - xp.clip(threshold, 0.0, 1.0)
        above = xp.stack([xp.log1p(xp.minimum(sizes, c / from_below) * excess) for c in FRACTIONS])
        below = xp.stack([xp.log1p(-xp.minimum(sizes, c / from_above) * excess) for c in FRACTIONS])
        return (
            self._above[:, rows][..., None] + xp.cumsum(above, -1),
            self._below[:, rows][..., None] + xp.cumsum(below, -1),
        )

    def _decide(self, rows: list[int], log_above: Any, log_below: Any) -> None:
        """Decide by the first crossing inside the update, and freeze what is decided."""
        xp = self._xp
        n = log_above.shape[-1]
        steps = self._like(log_above, range(n))
        first_up = xp.amin(xp.where(log_above >= self._needed[:, None], steps, float(n)), -1)
        first_down = xp.amin(xp.where(log_below >= self._needed_futility, steps, float(n)), -1)
        undecided = self.decisions[rows] == UNDECIDED
        up = undecided & (first_up < n) & (first_up <= first_down)
        down = undecided & (first_down < first_up)
        moment = xp.minimum(first_up, first_down)
        value = self._take(log_above, xp.clip(moment, 0.0, n - 1.0))
        value = xp.where(value == value, value, -math.inf)
        self.log_e_values[rows] = xp.where(undecided, value, self.log_e_values[rows])
        self.decisions[rows] = xp.where(up, CERTIFIED, xp.where(down, REFUTED, self.decisions[rows]))

    def _like(self, array: Any, values: Any) -> Any:
        """Numbers as a float64 array where ``array`` is."""
        if self._xp is np:
            return np.asarray(values, dtype=np.float64)
        if isinstance(values, range):
            values = list(values)
        return self._xp.tensor(values, dtype=self._xp.float64, device=array.device)

    def _take(self, values: Any, index: Any) -> Any:
        """Entry ``index[r, t]`` along the last axis of ``values[r, t]``."""
        if self._xp is np:
            return np.take_along_axis(values, index.astype(np.int64)[..., None], -1)[..., 0]
        return self._xp.gather(values, -1, index.to(self._xp.int64)[..., None])[..., 0]


def _unwrap(array: Any) -> Any:
    """The same numbers as a numpy array where they are in main memory, else the tensor as it is."""
    in_memory_tensor = not isinstance(array, np.ndarray) and array.device.type == "cpu"
    return array.detach().numpy() if in_memory_tensor else array


def _log_mean(xp: Any, logs: Any) -> Any:
    """Log of the mean of exp over the first axis."""
    top = xp.amax(logs, 0)
    return top + xp.log(xp.mean(xp.exp(logs - top), 0))
