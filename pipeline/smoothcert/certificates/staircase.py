"""A bound that lives on at large radii, from the distribution of one projection (docs/theory.md T6)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from smoothcert.certificates.domain import FloatArray, numbers, shift_in_noise_units
from smoothcert.certificates.projection import NEAREST_TO_ONE, ROUNDING

LARGE_RADIUS_THRESHOLDS: tuple[float, ...] = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
"""The cosines c_j of the published column ``large_radius``: fixed, since they may not depend on the draws."""


def large_radius_bound(
    exceedance: ArrayLike, thresholds: ArrayLike, radius: ArrayLike, sigma: ArrayLike
) -> FloatArray:
    """Lower bound of <m(x+delta), v> from probabilities of exceeding thresholds (docs/theory.md T6).

    Each indicator <u, v> >= c_j is a score of its own, which T1 moves to p'_j = Phi(Phi^-1(p_j) - rho);
    summing the steps gives -1 + sum_j (c_j - c_{j-1}) p'_j with c_0 = -1 (the staircase of Kumar et al. 2020,
    arXiv 2009.08061).

    Args:
        exceedance: shape (..., k): p_j, lower bounds of P(<u(x+eps), v> >= c_j), in [0,1]. Their failure
            probabilities add up.
        thresholds: shape (k,) or (..., k): c_1 < ... < c_k in [-1,1], fixed before the draws.
        radius: l2 radius, >= 0, shape (...,).
        sigma: noise standard deviation, > 0, shape (...,).

    Returns:
        Shape (...,): the bound where it is at least 0, so that it is one of the cosine too, rounded down; NaN
        elsewhere.

    Raises:
        ValueError: NaN, out of range, or thresholds that do not increase.
    """
    p = numbers("exceedance", exceedance, 0.0, 1.0)
    c = numbers("thresholds", thresholds, -1.0, 1.0)
    if p.ndim == 0 or c.ndim == 0 or p.shape[-1] != c.shape[-1]:
        raise ValueError(f"exceedance {p.shape} and thresholds {c.shape} need the same last axis")
    steps = np.diff(c, axis=-1, prepend=-1.0)
    if np.any(steps[..., 1:] <= 0):
        raise ValueError("thresholds must be strictly increasing")
    rho, _ = shift_in_noise_units(radius, sigma)
    # {score >= c_{j+1}} lies inside {score >= c_j}: a better bound of the smaller event serves the larger
    # one.
    p = np.maximum.accumulate(p[..., ::-1], axis=-1)[..., ::-1]
    quantile = np.where(p < 0.5, ndtri(p), -ndtri(np.maximum(1.0 - p, NEAREST_TO_ONE)))
    moved = np.where(p == 1.0, 1.0, ndtr(quantile - rho[..., None]))
    bound = np.sum(steps * moved, axis=-1) - 1.0 - ROUNDING * c.shape[-1]
    return np.where(bound >= 0.0, bound, np.nan)
