"""What pairs cost, learned from units that are done: with sequential stopping the plan can only say the most."""

from __future__ import annotations

import statistics
from collections import deque

_KNOWN_UNITS = 5
"""Finished units before "takes twice the usual time" means anything."""


class Pace:
    """Running means over the units of one run.

    Args:
        draws_per_pair: what is assumed before the first unit is done, e.g. the most that the job allows; 0 where
            draws say nothing about cost.
    """

    def __init__(self, draws_per_pair: float = 0.0) -> None:
        self._assumed = draws_per_pair
        self._pairs = 0
        self._draws = 0
        self._seconds_per_pair: deque[float] = deque(maxlen=200)

    def note(self, pairs: int, draws: int, seconds: float) -> None:
        """A unit is done."""
        self._pairs += pairs
        self._draws += draws
        self._seconds_per_pair.append(seconds / pairs)

    @property
    def draws_per_pair(self) -> float:
        """Mean draws of a pair so far."""
        return self._draws / self._pairs if self._draws else self._assumed

    def expected_s(self, pairs: int) -> float | None:
        """Usual time from giving a unit of so many pairs to a worker to its delivery; None while it is not known."""
        if len(self._seconds_per_pair) < _KNOWN_UNITS:
            return None
        return statistics.median(self._seconds_per_pair) * pairs
