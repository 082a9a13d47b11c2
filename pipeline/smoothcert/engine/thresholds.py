"""Targets as thresholds on a mean score in [0, 1], rounded so that reaching them really proves the target."""

from __future__ import annotations

import math
from collections.abc import Callable

from smoothcert.catalogue.certificates import Certificate

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


def certified_threshold(certificate: Certificate, cosine: float, radius: float, sigma: float) -> float:
    """Smallest mean score that certifies the cosine at the radius, for a certificate that rests on one mean alone.

    Raises:
        ValueError: it rests on something else, or has no bounds.
    """
    mean, bound = certificate.single_mean, certificate.bound
    if mean is None or bound is None:
        raise ValueError(f"certificate '{certificate.name}' has no threshold of one mean")

    def holds(score: float) -> bool:
        value = 2.0 * score - 1.0 if mean.projection else score
        known = mean.null is None or value > mean.null
        return known and float(bound.function(value, radius, sigma)) >= cosine

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
