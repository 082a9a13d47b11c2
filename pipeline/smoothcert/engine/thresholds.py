"""Targets as thresholds on a mean score in [0, 1], rounded so that reaching them really proves the target."""

from __future__ import annotations

import math
from collections.abc import Callable

from smoothcert.certificates import angular_bound, fcsb

TRIVIAL = 0.0
"""A test that holds whatever is drawn (used where a pair has fewer rivals than the layout has places)."""
IMPOSSIBLE = 1.0
"""A test that no mean of scores in [0, 1] can pass."""


def score_threshold(needed: float, length: float) -> float:
    """Threshold on the mean of (1 + <u, q>)/2 for the claim <m, length x q> >= needed, rounded up.

    Args:
        needed: what the unnormalised projection must reach.
        length: norm of the unnormalised direction.
    """
    if not (length > 0 and math.isfinite(needed)):
        return IMPOSSIBLE
    return _up((1.0 + needed / length) / 2.0)


def fcsb_threshold(cosine: float, radius: float, sigma: float) -> float:
    """Smallest robustness score that certifies the cosine at the radius (T2)."""
    return _smallest(lambda score: float(fcsb(score, radius, sigma)) >= cosine)


def angular_threshold(cosine: float, radius: float, sigma: float) -> float:
    """Smallest mean of (1 + <u, v>)/2 whose norm bound certifies the cosine at the radius (T3)."""

    def holds(score: float) -> bool:
        norm = 2.0 * score - 1.0
        return norm > 0 and float(angular_bound(norm, radius, sigma)) >= cosine

    return _smallest(holds)


def _smallest(holds: Callable[[float], bool]) -> float:
    """Bisect for the smallest value in [0, 1] at which an increasing predicate holds; IMPOSSIBLE if none.

    The value returned is one at which the predicate was seen to hold, so rounding cannot make it optimistic.
    """
    low, high = 0.0, math.nextafter(1.0, 0.0)
    if not holds(high):
        return IMPOSSIBLE
    for _ in range(60):
        middle = (low + high) / 2.0
        if holds(middle):
            high = middle
        else:
            low = middle
    return _up(high)


def _up(value: float) -> float:
    return IMPOSSIBLE if not value < 1.0 else max(TRIVIAL, math.nextafter(value, 2.0))
