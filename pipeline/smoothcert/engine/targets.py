"""Adaptive targets: running tests of every slot, and when a pair may stop.

A target is certified when all its tests are (for ranks: all but k - 1). The e-value of a target is the smallest over
its tests: if the target does not hold, the null hypothesis of at least one test, fixed before the draws, is true, and
the smallest e-value is at most that one. For rank at most k, k tests would have to be true nulls, so the k-th
smallest is at most their average times k: it is divided by k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from smoothcert.engine.layout import Layout, TargetTests
from smoothcert.engine.question import PIECES, Question
from smoothcert.engine.records import Decision
from smoothcert.job import CertifySection
from smoothcert.statistics import SequentialTest

Array = NDArray[np.float64]

_LARGEST = 700.0
"""Certainty, as a log e-value that a table can hold: exp(700) is nearly the largest number."""


def _levels(layout: Layout, alpha: float) -> list[float]:
    """Level of each test: alpha, or alpha / k for the rivals of a rank."""
    levels = [alpha] * len(layout.test_direction)
    for item in layout.targets:
        for test in item.rivals:
            levels[test] = alpha / (item.allowed + 1)
    return levels


class TargetTracker:
    """Tests of all slots of a lane.

    Args:
        layout: which tests belong to which target.
        certify: alpha and alpha_futility.
        slots: number of slots.
    """

    def __init__(self, layout: Layout, certify: CertifySection, slots: int) -> None:
        self._targets = layout.targets
        self._log_needed = -math.log(certify.alpha)
        self._directions = np.array(layout.test_direction, dtype=np.int64)
        self._bends = np.zeros((slots, len(layout.test_direction), PIECES))
        cuts = np.array(layout.test_cut)
        self._cuts = None if np.isnan(cuts).all() else cuts
        self._test: SequentialTest | None = None
        if layout.targets:
            thresholds = np.ones((slots, len(layout.test_direction)))
            self._test = SequentialTest(thresholds, _levels(layout, certify.alpha), certify.alpha_futility)

    def start(self, slot: int, question: Question) -> None:
        """A new pair is in the slot."""
        if self._test is not None:
            self._test.reset([slot], question.thresholds[None, :], question.bets)
            self._bends[slot] = question.scalars

    def update(self, slots: Sequence[int], scores: Array, counts: NDArray[np.int64]) -> None:
        """Feed the next draws of some slots.

        Args:
            slots: which slots.
            scores: (len(slots), chunk, directions) in [0, 1].
            counts: how many of the chunk's draws count, per slot.
        """
        if self._test is not None:
            along = scores[:, :, self._directions]
            bent = _bend(along, self._bends[list(slots)])
            if self._cuts is not None:  # of percentiles draws are counted; what is no number fails its pair
                bent = np.where(np.isnan(self._cuts), bent, along >= self._cuts)
            self._test.update(bent, slots=slots, counts=counts)

    def decided(self, slots: Sequence[int]) -> NDArray[np.bool_]:
        """Per slot, whether every target is decided (never without targets)."""
        if self._test is None:
            return np.zeros(len(slots), dtype=bool)
        results = [self.result(slot)[0] for slot in slots]
        return np.array([all(decision != "budget" for decision in row) for row in results])

    def result(self, slot: int) -> tuple[tuple[Decision, ...], tuple[float, ...]]:
        """Decision and log e-value of every target of a slot."""
        if self._test is None:
            return (), ()
        decisions = self._test.decisions[slot].tolist()
        log_e_values = self._test.log_e_values[slot].tolist()
        pairs = [self._target(item, decisions, log_e_values) for item in self._targets]
        return tuple(decision for decision, _ in pairs), tuple(value for _, value in pairs)

    def _target(
        self, item: TargetTests, decisions: list[int], log_e_values: list[float]
    ) -> tuple[Decision, float]:
        log_e = min(log_e_values[test] for test in item.must)
        refuted = any(decisions[test] < 0 for test in item.must)
        if item.rivals:
            ranked = sorted(log_e_values[test] for test in item.rivals)
            allowed = min(item.allowed, len(ranked) - 1)
            log_e = min(log_e, ranked[allowed] - math.log(allowed + 1))
            refuted = refuted or sum(decisions[test] < 0 for test in item.rivals) > item.allowed
        if log_e >= self._log_needed:
            return "certified", min(log_e, _LARGEST)
        return ("refuted" if refuted else "budget"), log_e


def _bend(scores: Array, pieces: Array) -> Array:
    """The scalar of each test (``MarginScalar.pieces``) of scores (slots, n, tests) along its direction; NaN stays."""
    margins = 2.0 * scores - 1.0
    offset, slope, rest = pieces[:, None, :, 0], pieces[:, None, :, 1], pieces[:, None, :, 2:]
    knots, kinks = np.split(rest, 2, axis=-1)
    falls = (kinks * np.clip(knots - margins[..., None], 0.0, None)).sum(axis=-1)
    bent: Array = np.clip(offset + slope * margins - falls, 0.0, 1.0)
    return bent
