"""Two runs on the same pairs: how much a share or a mean differs, from the differences within pairs.

Comparing within pairs takes out what makes one pair harder than another, so that far fewer pairs tell two runs apart
than their own intervals would suggest. All of it is for a number of pairs that was fixed beforehand, one figure at a
time: of twenty comparisons at 95%, one is expected to miss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr

from smoothcert.statistics.intervals import mean_interval, share_interval

MOST_FOR_BETTING = 100_000
"""Differences beyond which the interval of a mean comes from its moments: by then the two are equally wide."""


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """A difference between two runs over the pairs that both have.

    Attributes:
        pairs: how many.
        difference: this run's share or mean less the baseline's; None without pairs.
        low, high: its interval.
        p_value: of a share, of "as many gain as lose it" (McNemar, exact, two-sided); None of a mean.
        gained, lost: of a share, pairs that hold it in this run alone, and in the baseline alone; None of a mean.
    """

    pairs: int
    difference: float | None
    low: float
    high: float
    p_value: float | None = None
    gained: int | None = None
    lost: int | None = None


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p-value of McNemar's test: of the pairs that change, as many change either way.

    Twice the smaller tail of Binomial(gained + lost, 1/2), at most 1 (McNemar 1947; Agresti, Categorical Data Analysis,
    11.1). P(p-value <= a) <= a for every a.

    Args:
        gained: pairs that hold something in the one run alone.
        lost: pairs that hold it in the other alone.

    Raises:
        ValueError: a negative count.
    """
    if gained < 0 or lost < 0:
        raise ValueError(f"gained={gained} and lost={lost} must be 0 or more")
    return min(1.0, 2.0 * float(bdtr(min(gained, lost), gained + lost, 0.5)))


def share_difference(gained: int, lost: int, pairs: int, confidence: float = 0.95) -> PairedDifference:
    """How much two shares over the same pairs differ.

    The interval is c (2 g - 1) over the exact binomial intervals of c, the share of pairs that change, and of g, the
    share of gains among those, each at half of the failure probability: it covers at least as often as it says, at any
    number of pairs, and is wider than McNemar's test would have it.

    Args:
        gained: pairs that hold it in this run alone.
        lost: pairs that hold it in the baseline alone.
        pairs: pairs that both runs have.
        confidence: coverage, in [0.5, 1).

    Raises:
        ValueError: counts that cannot be, or confidence outside [0.5, 1).
    """
    changed = gained + lost
    if not (gained >= 0 and lost >= 0 and changed <= pairs):
        raise ValueError(
            f"gained={gained} and lost={lost} must be 0 or more, and together at most pairs={pairs}"
        )
    each = (1.0 + confidence) / 2.0
    few, many = share_interval(changed, pairs, each)
    worst, best = (2.0 * share - 1.0 for share in share_interval(gained, changed, each))
    return PairedDifference(
        pairs,
        (gained - lost) / pairs if pairs else None,
        low=max(-1.0, math.nextafter(min(few * worst, many * worst), -2.0)),
        high=min(1.0, math.nextafter(max(few * best, many * best), 2.0)),
        p_value=mcnemar(gained, lost),
        gained=gained,
        lost=lost,
    )


def mean_difference(differences: ArrayLike, reach: float = 1.0, confidence: float = 0.95) -> PairedDifference:
    """How much two means over the same pairs differ.

    The interval is distribution-free: by betting up to ``MOST_FOR_BETTING`` pairs, from mean and variance (Maurer and
    Pontil) beyond.

    Args:
        differences: (n,) this run's value less the baseline's, one per pair, in an order that was fixed beforehand.
        reach: the largest size that a difference can have.
        confidence: coverage, in [0.5, 1).

    Raises:
        ValueError: a difference is NaN or larger than ``reach``, they are not a vector, or confidence is outside
            [0.5, 1).
    """
    sample = np.asarray(differences, dtype=np.float64)
    if not reach > 0:
        raise ValueError(f"reach={reach} must be above 0: the largest size of a difference")
    if sample.size and not np.max(np.abs(sample)) <= reach:
        raise ValueError(f"a difference is NaN or larger than reach={reach}")
    # rounding may step over the ends by one unit
    between = np.clip((sample / reach + 1.0) / 2.0, 0.0, 1.0)
    low, high = mean_interval(between, confidence, anytime=sample.size <= MOST_FOR_BETTING)
    return PairedDifference(
        int(sample.size),
        float(sample.mean()) if sample.size else None,
        low=max(-reach, math.nextafter((2.0 * low - 1.0) * reach, -math.inf)),
        high=min(reach, math.nextafter((2.0 * high - 1.0) * reach, math.inf)),
    )
