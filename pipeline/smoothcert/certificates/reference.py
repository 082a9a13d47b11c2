"""Cosine to the clean feature by way of the smoothed one (docs/theory.md T5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from smoothcert.certificates.angular import angular_bound
from smoothcert.certificates.domain import FloatArray, numbers
from smoothcert.certificates.projection import ROUNDING, projection_bound


def clean_reference_bound(
    clean_projection: ArrayLike,
    smooth_norm: ArrayLike,
    radius: ArrayLike,
    sigma: ArrayLike,
    *,
    smooth_norm_upper: ArrayLike = 1.0,
) -> FloatArray:
    """Certified cosine between m(x+delta) and the clean feature u(x): the better of T2 and T5.

    T5 adds angles: angle(m(x+delta), u(x)) <= phi_0 + psi(N, rho) with cos phi_0 = <m(x), u(x)>/N.

    Args:
        clean_projection: <m(x), u(x)> or a lower bound of it, in [-1,1].
        smooth_norm: N or a lower bound of it, in [0,1] (negative bounds count as 0).
        radius: l2 radius, >= 0.
        sigma: noise standard deviation, > 0.
        smooth_norm_upper: an upper bound of N, in (0,1]; 1 needs no draws and no failure probability.

    Returns:
        The broadcast certified cosine in [0,1], rounded down; NaN (vacuous) where neither says anything. It
        fails with at most the sum of the failure probabilities of its two bounds (three with
        ``smooth_norm_upper``).

    Raises:
        ValueError: NaN or out of range.
    """
    s = numbers("clean_projection", clean_projection, -1.0, 1.0)
    norm = np.maximum(numbers("smooth_norm", smooth_norm, -1.0, 1.0), 0.0)
    upper = numbers("smooth_norm_upper", smooth_norm_upper, 0.0, 1.0, low_open=True)
    direct = projection_bound(s, radius, sigma)
    turned = np.arccos(angular_bound(norm, radius, sigma))
    towards_clean = np.arccos(np.clip(s / upper, -1.0, 1.0))
    total = turned + towards_clean
    with np.errstate(invalid="ignore"):
        summed = np.where(total < np.pi / 2, np.cos(total) - ROUNDING, np.nan)
        best = np.fmax(np.where(direct >= 0.0, direct, np.nan), np.where(summed >= 0.0, summed, np.nan))
    return np.asarray(best)
