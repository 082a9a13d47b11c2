"""Closed forms that follow from one projection of the smoothed feature (docs/theory.md T1 and T2).

T1 is the Neyman-Pearson argument of Cohen et al. 2019 (arXiv 1902.02918) and Salman et al. 2019
(1906.04584). T2 is the feature cosine similarity bound (FCSB) of Xia et al. 2026 (2601.16200) in its sound
form: the reference is the fixed clean feature, and a negative value certifies nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from smoothcert.certificates.domain import FloatArray, numbers, positive, shift_in_noise_units

# Far above what ndtr and ndtri err by (1e-15), far below anything that matters.
ROUNDING = 1e-14
# No finite float distinguishes a mean of 1 from one this near to it, so radii stay finite.
NEAREST_TO_ONE = 2.0**-53


def quantile_of_mean(value: FloatArray) -> FloatArray:
    """Phi^-1((1+value)/2) for value in [-1,1], accurate at both ends and finite (rounded towards 0 there)."""
    upper = -ndtri(np.maximum((1.0 - value) / 2.0, NEAREST_TO_ONE))
    lower = ndtri(np.maximum((1.0 + value) / 2.0, NEAREST_TO_ONE))
    return np.asarray(np.where(value >= 0, upper, lower))


def mean_of_quantile(quantile: FloatArray) -> FloatArray:
    """2 Phi(quantile) - 1, accurate at both ends."""
    tail = 1.0 - 2.0 * ndtr(-np.abs(quantile))
    return np.asarray(np.sign(quantile) * tail)


def projection_bound(projection: ArrayLike, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """Lower bound of <m(x+delta), v> for every ||delta||_2 <= radius (docs/theory.md T1).

    Args:
        projection: <m(x), v> or a lower bound of it, in [-1,1]; v is any unit vector fixed beforehand.
        radius: l2 radius in units of the canonical input, >= 0.
        sigma: noise standard deviation in the same units, > 0.

    Returns:
        The broadcast bound in [-1,1]. It may be negative: it bounds a projection, not a cosine.

    Raises:
        ValueError: NaN or out of range.
    """
    s = numbers("projection", projection, -1.0, 1.0)
    rho, _ = shift_in_noise_units(radius, sigma)
    # A projection of 1 (or -1) does not move: the feature is constant almost surely.
    moved = mean_of_quantile(quantile_of_mean(s) - rho)
    bound = np.where((rho == 0) | (np.abs(s) == 1.0), s, moved - ROUNDING)
    return np.maximum(bound, -1.0)


def score_bound(score: ArrayLike, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """Lower bound of the mean of a score under noise, for every ||delta||_2 <= radius (docs/theory.md T1).

    Args:
        score: E f(x + eps) of any score f with values in [0,1], or a lower bound of it, in [0,1].
        radius: l2 radius in units of the canonical input, >= 0.
        sigma: noise standard deviation in the same units, > 0.

    Returns:
        Phi(Phi^-1(score) - radius/sigma), rounded down; NaN (vacuous) where that is not above 0.

    Raises:
        ValueError: NaN or out of range.
    """
    mean = numbers("score", score, 0.0, 1.0)
    bound = (1.0 + projection_bound(_projection_of_score(mean), radius, sigma)) / 2.0 - ROUNDING
    return np.where(bound > 0, bound, np.nan)


def fcsb(robustness_score: ArrayLike, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """Certified cosine between m(x+delta) and the clean feature u(x) (docs/theory.md T2).

    Args:
        robustness_score: S = (1 + <m(x), u(x)>)/2 or a lower bound of it, in [0,1].
        radius: l2 radius in units of the canonical input, >= 0.
        sigma: noise standard deviation in the same units, > 0.

    Returns:
        2 Phi(Phi^-1(S) - radius/sigma) - 1 where that is >= 0, rounded down; NaN (vacuous) elsewhere.
        A negative value would be false as a cosine bound, because ||m|| <= 1 divides it.

    Raises:
        ValueError: NaN or out of range.
    """
    score = numbers("robustness_score", robustness_score, 0.0, 1.0)
    bound = projection_bound(_projection_of_score(score), radius, sigma)
    return np.where(bound >= 0, bound, np.nan)


def fcsb_radius(robustness_score: ArrayLike, cosine: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """Radius within which the cosine to the clean feature stays at least ``cosine`` (docs/theory.md T2).

    Args:
        robustness_score: S or a lower bound of it, in [0,1].
        cosine: wanted cosine tau in [0,1]; 0.5 gives the paper's corollary.
        sigma: noise standard deviation, > 0.

    Returns:
        sigma (Phi^-1(S) - Phi^-1((1+tau)/2)), rounded down, finite; NaN where not even radius 0 holds.

    Raises:
        ValueError: NaN or out of range.
    """
    score = numbers("robustness_score", robustness_score, 0.0, 1.0)
    tau = numbers("cosine", cosine, 0.0, 1.0)
    s = _projection_of_score(score)
    spread = positive("sigma", sigma)
    radius = spread * (quantile_of_mean(s) - quantile_of_mean(tau) - ROUNDING) * (1 - ROUNDING)
    holds = (s >= tau) & (tau < 1.0)
    return np.where(holds, np.maximum(radius, 0.0), np.nan)


def _projection_of_score(score: FloatArray) -> FloatArray:
    # 2S - 1 is exact in floating point for S >= 1/4; below that T2 is vacuous anyway.
    return np.asarray(2.0 * score - 1.0)
