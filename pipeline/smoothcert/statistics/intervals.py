"""Confidence intervals over pairs: what a sample of pairs says about the population it was drawn from."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, betainccinv, betaincinv, betaln, xlogy

from smoothcert.statistics.bounds import Method, lower_bound


def share_interval(
    hits: int, pairs: int, confidence: float = 0.95, *, anytime: bool = False
) -> tuple[float, float]:
    """Two-sided interval for a population share.

    Args:
        hits: pairs with the property.
        pairs: pairs looked at, in random order from the population.
        confidence: coverage, in [0.5, 1).
        anytime: False: exact binomial (Clopper and Pearson), for a number of pairs fixed beforehand. True: valid
            at every moment of a run at once, from the Beta(1/2, 1/2) mixture martingale (Robbins; Ville).

    Returns:
        (low, high), rounded outwards; (0, 1) without pairs.

    Raises:
        ValueError: hits not in 0..pairs, or confidence outside [0.5, 1).
    """
    if not 0 <= hits <= pairs:
        raise ValueError(f"hits={hits} must be between 0 and pairs={pairs}")
    tail = _tail(confidence)
    if pairs == 0:
        return 0.0, 1.0
    if anytime:
        return (
            _mixture_end(hits, pairs, 2.0 * tail, low=True),
            _mixture_end(hits, pairs, 2.0 * tail, low=False),
        )
    misses = pairs - hits
    low = float(betaincinv(hits, misses + 1.0, tail)) if hits else 0.0
    # From the upper tail: 1 - tail would round a small tail away.
    high = float(betainccinv(hits + 1.0, misses, tail)) if misses else 1.0
    return max(0.0, low * (1.0 - 1e-12)), min(1.0, high * (1.0 + 1e-12))


def mean_interval(
    values: ArrayLike, confidence: float = 0.95, *, anytime: bool = False
) -> tuple[float, float]:
    """Two-sided interval for a population mean of values in [0, 1].

    Args:
        values: (n,) in [0, 1], one per pair, in the order in which the pairs came.
        confidence: coverage, in [0.5, 1).
        anytime: False: empirical Bernstein (Maurer and Pontil), for a number of pairs fixed beforehand; it needs
            mean and variance only. True: betting, valid at every moment of a run, and usually narrower.

    Returns:
        (low, high), rounded outwards; (0, 1) without values.

    Raises:
        ValueError: a value is NaN or outside [0, 1], the values are not a vector, or confidence is outside
            [0.5, 1).
    """
    sample = np.asarray(values, dtype=np.float64)
    tail = _tail(confidence)
    if sample.ndim != 1:
        raise ValueError(f"values has shape {sample.shape}; give a vector with one value per pair")
    if sample.size == 0:
        return 0.0, 1.0
    method: Method = "betting" if anytime else "empirical_bernstein"
    low, below = lower_bound(np.stack([sample, 1.0 - sample]), tail, method)
    return float(low), min(1.0, math.nextafter(1.0 - float(below), 2.0))


def quantile_ranks(pairs: int, quantile: float, confidence: float = 0.95) -> tuple[int, int]:
    """Ranks of the sorted values between which a population quantile lies, whatever the distribution.

    From the number of values at most the quantile, which is binomial (Thompson 1936; David and Nagaraja, Order
    Statistics, 7.1). Ties and atoms only add coverage.

    Args:
        pairs: values, one per pair, a number that was fixed beforehand.
        quantile: in (0, 1); 0.5 is the median.
        confidence: coverage, in [0.5, 1).

    Returns:
        (low, high), ranks from 1 for the smallest; 0 and pairs + 1 where that side has no bound.

    Raises:
        ValueError: a negative number of pairs, a quantile outside (0, 1), or confidence outside [0.5, 1).
    """
    if pairs < 0:
        raise ValueError(f"pairs={pairs} must be 0 or more")
    if not 0.0 < quantile < 1.0:
        raise ValueError(f"quantile={quantile} must be between 0 and 1, e.g. 0.5 for the median")
    tail = _tail(confidence)
    if pairs == 0:
        return 0, 1
    low = _count_below(pairs, quantile, tail)
    # seen from above, the same for 1 - quantile
    return low, pairs + 1 - _count_below(pairs, 1.0 - quantile, tail)


def _count_below(pairs: int, quantile: float, tail: float) -> int:
    """The largest rank l with P(Binomial(pairs, quantile) < l) at most ``tail``; 0 for none."""
    # the distribution function is accurate to more than this share
    limit = tail * (1.0 - 1e-9)
    low, high = 0, pairs + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if bdtr(middle - 1, pairs, quantile) <= limit else (low, middle)
    return low


def _tail(confidence: float) -> float:
    """Failure probability of each side."""
    if not 0.5 <= confidence < 1.0:
        raise ValueError(
            f"confidence={confidence} must be in [0.5, 1): the coverage, e.g. 0.95, not its error"
        )
    return (1.0 - confidence) / 2.0


def _mixture_end(hits: int, pairs: int, alpha: float, *, low: bool) -> float:
    """End of {p: likelihood ratio of the mixture to p < 1/alpha}, by bisection from the sample share."""
    mixed = float(betaln(hits + 0.5, pairs - hits + 0.5) - betaln(0.5, 0.5))
    # Logarithms of about ``pairs`` are subtracted: the slack covers their floating point error.
    limit = math.log(1.0 / alpha) + 1e-9 + 1e-15 * pairs
    inside, outside = hits / pairs, 0.0 if low else 1.0
    for _ in range(60):
        middle = (inside + outside) / 2.0
        if mixed - float(xlogy(hits, middle) + xlogy(pairs - hits, 1.0 - middle)) < limit:
            inside = middle
        else:
            outside = middle
    return outside
