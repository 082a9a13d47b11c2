"""Shares and means of pairs, with their 95% intervals."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt

from smoothcert.statistics import share_interval

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Share:
    """``count`` pairs of ``of``; the share and its 95% interval, all None where ``of`` is 0."""

    count: int
    of: int
    share: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean over ``count`` pairs, None where nothing was averaged; its 95% interval, once the run is finished."""

    count: int
    mean: float | None
    low: float | None
    high: float | None


def make_share(count: int, of: int, *, anytime: bool = False) -> Share:
    """A share with its interval: exact binomial, or valid at every moment of a run."""
    if not of:
        return Share(count, of, None, None, None)
    return Share(count, of, count / of, *share_interval(count, of, CONFIDENCE, anytime=anytime))


def make_mean(count: int, mean: float | None, variance: float | None, *, anytime: bool = False) -> Mean:
    """A mean of numbers in [0, 1] with its empirical Bernstein interval (Maurer and Pontil 2009, theorem 4).

    Distribution-free, from moments alone, so that the numbers never leave the database. Two-sided: each side
    at half of the failure probability.
    """
    if mean is None or not count or anytime:
        # at a moment that the run itself chose, the fixed-n interval would not hold
        return Mean(count, mean, None, None)
    if count < 2 or variance is None:
        return Mean(count, mean, 0.0, 1.0)
    term = log(2.0 / ((1.0 - CONFIDENCE) / 2.0))
    half = sqrt(2.0 * variance * term / count) + 7.0 * term / (3.0 * (count - 1))
    return Mean(count, mean, max(0.0, mean - half), min(1.0, mean + half))
