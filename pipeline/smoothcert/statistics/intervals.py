"""Confidence intervals over pairs: what a sample of pairs says about the population it was drawn from."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv, betaln, xlogy

from smoothcert.statistics.bounds import lower_bound


def share_interval(hits: int, pairs: int, confidence: float = 0.95, *, anytime: bool = False) -> tuple[float, float]:
    """Two-sided interval for a population share.

    Args:
        hits: pairs with the property.
        pairs: pairs looked at, in random order from the population.
        confidence: coverage, in (0, 1).
        anytime: False: exact binomial (Clopper and Pearson), for a number of pairs fixed beforehand. True: valid at
            every moment of a run at once, from the Beta(1/2, 1/2)-mixture martingale (Robbins; Ville).

    Returns:
        (low, high), rounded outwards; (0, 1) without pairs.

    Raises:
        ValueError: hits not in 0..pairs, or confidence outside (0, 1).
    """
    if not 0 <= hits <= pairs:
        raise ValueError(f"hits={hits} must be between 0 and pairs={pairs}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence={confidence} must be in (0, 1)")
    if pairs == 0:
        return 0.0, 1.0
    if anytime:
        return _mixture_end(hits, pairs, confidence, low=True), _mixture_end(hits, pairs, confidence, low=False)
    tail = (1.0 - confidence) / 2.0
    misses = pairs - hits
    low = float(betaincinv(hits, misses + 1.0, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1.0, misses, 1.0 - tail)) if misses else 1.0
    return max(0.0, low * (1.0 - 1e-12)), min(1.0, high * (1.0 + 1e-12))


def _mixture_end(hits: int, pairs: int, confidence: float, *, low: bool) -> float:
    """End of {p: mixture likelihood / likelihood at p < 1/(1 - confidence)}, by bisection from the sample share."""
    mixed = float(betaln(hits + 0.5, pairs - hits + 0.5) - betaln(0.5, 0.5))
    limit = math.log(1.0 / (1.0 - confidence))
    inside = hits / pairs
    outside = 0.0 if low else 1.0
    for _ in range(60):
        middle = (inside + outside) / 2.0
        log_ratio = mixed - float(xlogy(hits, middle) + xlogy(pairs - hits, 1.0 - middle))
        if log_ratio < limit:
            inside = middle
        else:
            outside = middle
    return outside


def mean_interval(values: ArrayLike, confidence: float = 0.95, *, anytime: bool = False) -> tuple[float, float]:
    """Two-sided interval for a population mean of values in [0, 1].

    Args:
        values: (n,) in [0, 1], one per pair.
        confidence: coverage.
        anytime: True: betting, valid at every moment of a run. False: Maurer and Pontil, at a fixed n.

    Returns:
        (low, high); (0, 1) without values.

    Raises:
        ValueError: a value is NaN or outside [0, 1], or confidence outside (0, 1).
    """
    sample = np.asarray(values, dtype=np.float64)
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence={confidence} must be in (0, 1)")
    if sample.size == 0:
        return 0.0, 1.0
    tail = (1.0 - confidence) / 2.0
    method = "betting" if anytime else "empirical_bernstein"
    return float(lower_bound(sample, tail, method)), float(1.0 - lower_bound(1.0 - sample, tail, method))
