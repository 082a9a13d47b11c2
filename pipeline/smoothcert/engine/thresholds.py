"""Targets as thresholds on a mean score in [0, 1], rounded so that reaching them really proves the target."""

from __future__ import annotations

import math
from collections.abc import Callable

from smoothcert.catalogue.certificate import Certificate
from smoothcert.catalogue.functions import projection_of_score
from smoothcert.certificates import percentile_share

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


def certified_threshold(certificate: Certificate, cosine: float | None, radius: float, sigma: float) -> float:
    """Smallest mean score that certifies the radius, and the cosine there, for a certificate that rests on one mean.

    Args:
        certificate: it has a bound, or a radius.
        cosine: what the bound must reach; None with a radius.
        radius: l2 radius.
        sigma: noise level.

    Raises:
        ValueError: it rests on something else, or a cosine is missing.
    """
    mean, bound, reach = certificate.single_mean, certificate.bound, certificate.radius
    if mean is None or (cosine is None) == (reach is None):
        raise ValueError(f"certificate '{certificate.name}' has no threshold of one mean")

    def holds(score: float) -> bool:
        value = 2.0 * score - 1.0 if mean.projection else score
        if mean.null is not None and value <= mean.null:
            return False
        if bound is not None and cosine is not None:
            return float(bound.function(value, radius, sigma)) >= cosine
        return reach is not None and float(reach.function(value, sigma)) >= radius

    return _smallest(holds)


def percentile_threshold(percentile: float, radius: float, sigma: float) -> float:
    """Share of draws with a score of at least t that certifies the percentile to be at least t within the radius.

    With Y the score, P(Y < t) < q* proves it (docs/theory.md T9), and so does P(Y >= t) above 1 - q*, rounded up.

    Args:
        percentile: q in (0,1).
        radius: l2 radius.
        sigma: noise level.
    """
    return _up(1.0 - float(percentile_share(percentile, radius, sigma)))


def percentile_cut(projection: float) -> float:
    """A score in [0, 1] whose projection, rounded down as columns are, is hardly more than this one in [-1, 1)."""
    for extra in range(8):
        score = min((1.0 + projection + extra * 2.0**-52) / 2.0, 1.0)
        if float(projection_of_score(score)) >= projection:
            return score
    raise AssertionError(f"no score shows {projection}")


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
    # by a step of rounding a function may fall where it should rise
    while (high := _up(high)) != IMPOSSIBLE and not holds(high):
        pass
    return high


def _up(value: float) -> float:
    return IMPOSSIBLE if not value < 1.0 else max(TRIVIAL, math.nextafter(value, 2.0))
