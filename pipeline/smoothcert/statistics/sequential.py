"""Sequential tests of many means at once: stop as soon as a threshold is decided (theory.md 3, adaptive stopping)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike

from smoothcert.statistics.betting import FRACTIONS, array_module, stakes

CERTIFIED, UNDECIDED, REFUTED = 1, 0, -1

_SLACK = 1e-9
"""Log capital that a decision needs beyond its threshold: floating point error of a sum of logarithms."""
_SMALLEST = 1e-300


class SequentialTest:
    """Running tests of "the mean exceeds m0" for slots x tests, with capital in both directions.

    ``certified`` when the capital of the bet against "the mean is at most m0" reaches 1/alpha: false with probability
    at most alpha, whatever the stopping rule (Ville's inequality). ``refuted`` when the opposite bet reaches
    1/alpha_futility: work ends there, and nothing is claimed. A decision is final until the slot is reset.

    Works on numpy arrays and on torch tensors of any device: the state lives where ``thresholds`` live.

    Args:
        thresholds: (slots, tests) float64 m0. At most 0: certified at once (scores are never negative, and the
            claim is "at least"). At least 1: refuted at once.
        alpha: failure probability of ``certified``; a number, or one per test.
        alpha_futility: that of ``refuted``.

    Attributes:
        decisions: (slots, tests) integers, 1 certified, 0 undecided, -1 refuted.
        log_e_values: (slots, tests) log of the e-value against "the mean is at most m0" at the present time, frozen
            with the decision.

    Raises:
        ValueError: thresholds are NaN or not two-dimensional, or a level is outside (0, 1).
    """

    def __init__(self, thresholds: Any, alpha: ArrayLike, alpha_futility: float = 0.01) -> None:
        xp = self._xp = array_module(thresholds)
        if thresholds.ndim != 2 or not bool((thresholds == thresholds).all()):
            raise ValueError("thresholds must be a (slots, tests) array without NaN")
        tests = thresholds.shape[1]
        levels = [float(a) for a in alpha] if isinstance(alpha, Sequence) else [float(alpha)] * tests  # type: ignore[arg-type]  # numbers only
        if len(levels) != tests or not all(0.0 < a < 1.0 for a in [*levels, alpha_futility]):
            raise ValueError(f"alpha={alpha} and alpha_futility={alpha_futility} must be in (0, 1), one per test")
        self._alpha = min(levels, default=0.5)
        self._alpha_futility = alpha_futility
        zeros = thresholds * 0.0
        self._needed = zeros[0] + xp.asarray([math.log(1.0 / a) for a in levels], dtype=zeros.dtype) if tests else zeros
        self._thresholds = thresholds + 0.0
        self._count, self._total, self._deviation = zeros + 0.0, zeros + 0.0, zeros + 0.0
        # log capital of every gambler: (fractions, slots, tests), above and below the threshold
        self._above = xp.stack([zeros] * len(FRACTIONS))
        self._below = xp.stack([zeros] * len(FRACTIONS))
        self.log_e_values = zeros + 0.0
        self.decisions = (zeros > 1.0) * 1
        self._decide_trivial(list(range(thresholds.shape[0])))

    def reset(self, slots: Sequence[int], thresholds: Any) -> None:
        """Start anew in some slots.

        Args:
            slots: which.
            thresholds: (len(slots), tests).
        """
        rows = list(slots)
        if not bool((thresholds == thresholds).all()):
            raise ValueError("thresholds must not be NaN")
        self._thresholds[rows] = thresholds
        for state in (self._count, self._total, self._deviation, self.log_e_values, self.decisions):
            state[rows] = 0
        self._above[:, rows] = 0.0
        self._below[:, rows] = 0.0
        self._decide_trivial(rows)

    def _decide_trivial(self, rows: list[int]) -> None:
        thresholds = self._thresholds[rows]
        # sure things are no evidence that anybody collected, but they are certain: an infinite e-value
        sure = thresholds <= 0.0
        self.decisions[rows] = sure * 1 - (thresholds >= 1.0) * 1
        self.log_e_values[rows] = self._xp.where(sure, math.inf, 0.0 * thresholds)

    def update(self, scores: Any, *, slots: Sequence[int], counts: Any) -> None:
        """Feed the next draws of some slots.

        Args:
            scores: (len(slots), n, tests) in [0, 1], in order. NaN leaves a test undecided for ever.
            slots: which slots.
            counts: (len(slots),) how many of the n draws count.
        """
        xp, rows = self._xp, list(slots)
        n = scores.shape[1]
        draws = xp.moveaxis(scores, 1, -1)  # (rows, tests, n)
        inside = xp.arange(n)[None, :] < xp.asarray(counts)[:, None]
        if hasattr(draws, "device") and hasattr(inside, "to"):
            inside = inside.to(draws.device)
        inside = inside[:, None, :]
        sizes, totals, deviations = stakes(
            draws,
            self._alpha,
            self._count[rows][..., None],
            self._total[rows][..., None],
            self._deviation[rows][..., None],
        )
        m0 = xp.clip(self._thresholds[rows], _SMALLEST, 1.0)[..., None]
        excess = draws - m0
        zero = 0.0 * excess
        above, below = [], []
        for k, fraction in enumerate(FRACTIONS):
            up = xp.log1p(xp.minimum(sizes, fraction / m0) * excess)
            down = xp.log1p(-xp.minimum(sizes, fraction / xp.clip(1.0 - m0, _SMALLEST, 1.0)) * excess)
            above.append(self._above[k][rows][..., None] + xp.cumsum(xp.where(inside, up, zero), -1))
            below.append(self._below[k][rows][..., None] + xp.cumsum(xp.where(inside, down, zero), -1))
        log_above, log_below = _log_mean(xp, above), _log_mean(xp, below)
        self._decide(rows, log_above, log_below)
        last = [int(c) - 1 for c in counts]
        index = list(range(len(rows)))
        self._count[rows] = self._count[rows] + xp.asarray(counts, dtype=draws.dtype).reshape(-1, 1)
        self._total[rows] = totals[index, :, last]
        self._deviation[rows] = deviations[index, :, last]
        for k in range(len(FRACTIONS)):
            self._above[k, rows] = above[k][..., -1]
            self._below[k, rows] = below[k][..., -1]

    def _decide(self, rows: list[int], log_above: Any, log_below: Any) -> None:
        """Decide by the first crossing inside the chunk, and freeze what is decided."""
        xp = self._xp
        n = log_above.shape[-1]
        steps = xp.arange(n)
        if hasattr(steps, "to"):
            steps = steps.to(log_above.device)
        # comparisons are false for NaN: what is not a number decides nothing
        crossed_up = log_above >= self._needed[:, None] + _SLACK
        crossed_down = log_below >= math.log(1.0 / self._alpha_futility) + _SLACK
        first_up = xp.where(crossed_up, steps, n).min(-1)
        first_down = xp.where(crossed_down, steps, n).min(-1)
        if xp.__name__ == "torch":
            first_up, first_down = first_up.values, first_down.values
        open_ = self.decisions[rows] == UNDECIDED
        up = open_ & (first_up < n) & (first_up <= first_down)
        down = open_ & (first_down < n) & (first_down < first_up)
        at = xp.clip(xp.where(up, first_up, xp.where(down, first_down, n - 1)), 0, n - 1)
        if xp.__name__ == "torch":
            value = xp.gather(log_above, -1, at[..., None])[..., 0]
        else:
            value = xp.take_along_axis(log_above, at[..., None], -1)[..., 0]
        value = xp.where(value == value, value, -math.inf)
        self.log_e_values[rows] = xp.where(open_, value, self.log_e_values[rows])
        self.decisions[rows] = xp.where(up, CERTIFIED, xp.where(down, REFUTED, self.decisions[rows]))


def _log_mean(xp: Any, logs: list[Any]) -> Any:
    stacked = xp.stack(logs)
    top = stacked.max(0)
    top = top.values if xp.__name__ == "torch" else top
    return top + xp.log(xp.exp(stacked - top).mean(0))
