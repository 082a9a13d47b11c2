"""The tight angular certificate (docs/theory.md T3): how far m can turn, knowing only its norm.

angle(m(x+delta), m(x)) <= psi(N, rho), and no smaller angle follows from N alone. For one lambda = (cos
theta, -sin theta) with threshold H of the frontier, an angle psi is excluded when N cos(psi - theta) > H, so
every line of the frontier gives psi <= theta - arccos(H/N) at *every* N: lines are picked by N, bounds are
never interpolated.

Closed forms it improves on: the Lipschitz bound of Pautov et al. 2022 (arXiv 2202.01186), sharpened to
arcsin((2 Phi(rho) - 1)/N), and T2 with S = (1+N)/2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from smoothcert.certificates.atlas import certified_shift, nearest_line
from smoothcert.certificates.domain import FloatArray, numbers, positive, shift_in_noise_units
from smoothcert.certificates.frontier import LARGEST_SHIFT, SMALLEST_SHIFT, Frontier, frontier
from smoothcert.certificates.projection import ROUNDING

# From so many different shifts on, one sound line per row is cheaper than a frontier per shift.
_FRONTIERS_PER_CALL = 24


def angular_bound(smooth_norm: ArrayLike, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """Certified cosine between m(x+delta) and m(x) for every ||delta||_2 <= radius (docs/theory.md T3).

    Args:
        smooth_norm: N = ||m(x)|| or a lower bound of it, in [0,1].
        radius: l2 radius in units of the canonical input, >= 0.
        sigma: noise standard deviation in the same units, > 0.

    Returns:
        The broadcast certified cosine in [0,1], rounded down; NaN (vacuous) where only an angle of 90 degrees
        or more can be certified. At radius 0 and at N = 1 it is 1.

    Raises:
        ValueError: NaN or out of range.
    """
    norm = numbers("smooth_norm", smooth_norm, 0.0, 1.0)
    rho, _ = shift_in_noise_units(radius, sigma)
    norm, rho = np.broadcast_arrays(norm, rho)
    result = np.full(norm.shape, np.nan)
    still = (norm == 1.0) | ((rho == 0.0) & (norm > 0.0))
    result[still] = 1.0
    moving = ~still & (norm > 0.0) & (rho <= LARGEST_SHIFT)
    result[moving] = _bound(norm[moving], np.maximum(rho[moving], SMALLEST_SHIFT))
    return result


def angular_radius(smooth_norm: ArrayLike, cosine: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """Radius within which the cosine of m(x+delta) and m(x) stays at least ``cosine`` (docs/theory.md T3).

    Args:
        smooth_norm: N or a lower bound of it, in [0,1].
        cosine: wanted cosine in [0,1].
        sigma: noise standard deviation, > 0.

    Returns:
        The largest radius found, rounded down and finite (at most LARGEST_SHIFT sigma); 0 for a cosine of 1
        at N < 1; NaN for N = 0, where the direction of m(x) is unknown.

    Raises:
        ValueError: NaN or out of range.
    """
    norm = numbers("smooth_norm", smooth_norm, 0.0, 1.0)
    tau = numbers("cosine", cosine, 0.0, 1.0)
    spread = positive("sigma", sigma)
    norm, tau, spread = np.broadcast_arrays(norm, tau, spread)
    shift = np.zeros(norm.shape)
    shift[norm == 1.0] = LARGEST_SHIFT
    ask = (norm > 0.0) & (norm < 1.0) & (tau < 1.0)
    # One ulp of tau, so that the sine and cosine used do not ask for less than tau.
    c = np.nextafter(tau[ask], 1.0)
    shift[ask], _ = certified_shift(norm[ask] * c, norm[ask] * np.sqrt(1.0 - c**2))
    return np.where(norm > 0.0, shift * spread * (1 - ROUNDING), np.nan)


def _bound(norm: FloatArray, rho: FloatArray) -> FloatArray:
    shifts, which = np.unique(rho, return_inverse=True)
    if shifts.size > _FRONTIERS_PER_CALL:
        theta, needed = nearest_line(norm, rho)
        return _cosine(np.cos(theta), np.sin(theta), needed, norm)
    result = np.empty(norm.shape)
    for i, shift in enumerate(shifts):
        rows = which == i if shifts.size > 1 else slice(None)
        result[rows] = _on_frontier(frontier(float(shift)), norm[rows])
    return result


def _on_frontier(lines: Frontier, norm: FloatArray) -> FloatArray:
    best = np.searchsorted(lines.corner, norm)
    return _cosine(lines.cosine[best], lines.sine[best], lines.needed[best], norm)


def _cosine(cosine: FloatArray, sine: FloatArray, needed: FloatArray, norm: FloatArray) -> FloatArray:
    """cos(theta - arccos(needed/norm)) rounded down, NaN where the line says nothing below 90 degrees."""
    with np.errstate(over="ignore"):
        share = np.minimum(needed / norm, 2.0)
    # The slack inside ``needed`` is far larger than what these few operations round off.
    turned = cosine * share + sine * np.sqrt(np.maximum((1.0 - share) * (1.0 + share), 0.0)) - ROUNDING
    return np.where((share < 1.0) & (turned >= 0.0), np.minimum(turned, 1.0 - ROUNDING), np.nan)
