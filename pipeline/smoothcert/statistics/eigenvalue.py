"""Upper confidence bound of the largest eigenvalue of a second moment, without a factor for the dimension (T7).

For a fixed vector a, the covariance of u lies below E (u-a)(u-a)' in the order of matrices. Let w be the top
eigenvector of that expectation: fixed, though unknown. The numbers <u-a, w>^2 of the draws are iid in [0, range], their
mean is the eigenvalue that is wanted, and their sample mean is at most the largest eigenvalue of the *sample's* second
moment. So any upper confidence bound of a mean that grows with the sample mean holds when it is given that eigenvalue
instead. No union over directions is needed.

The same with an event G of each draw, counting only draws in it: <u-a, w>^2 1_G has a smaller range, if G is a ball
around a fixed on the pilot, and what lies outside is left to a bound of P(not G).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg.lapack import dpotrf
from scipy.special import xlogy

Array = NDArray[np.float64]

ETAS = (0.1, 0.25, 0.6, 1.5, 4.0, 12.0)
"""Exponents of the mixed capitals of the any-time bound; optimal ones lie between, from spread to rare events."""

_HALVINGS = 60
_ROUNDING = 1e-10
"""Relative error of an eigenvalue of a matrix of some thousand rows, and of the sums in it, rounded up."""


_SMALL = 96
"""Up to so many rows all eigenvalues are computed; beyond, an upper bound of the largest one is proved."""
_STEPS = 12
_ABOVE = (2e-3, 1e-2, 5e-2)
"""Relative distances above the estimate at which the bound is tried: it is that loose at most."""


def largest_eigenvalue(moments: ArrayLike) -> Array:
    """Largest eigenvalues (...,) of symmetric matrices (..., d, d) without negative ones, rounded up; at least 0.

    Of large matrices an upper bound, some thousandths above it and ten times as fast: if theta I - S has a Cholesky
    factor, no eigenvalue of S exceeds theta.

    Raises:
        ValueError: an entry is not finite, or the matrices are not square.
    """
    matrix = np.asarray(moments, dtype=np.float64)
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise ValueError(f"moments has shape {matrix.shape}; give square matrices (..., d, d)")
    if not np.isfinite(matrix).all():
        raise ValueError("moments holds NaN or an infinite number")
    d = matrix.shape[-1]
    if d <= _SMALL:
        top = np.linalg.eigvalsh(matrix)[..., -1]
    else:
        each = matrix.reshape(-1, d, d)
        top = np.array([_proved_eigenvalue(one) for one in each]).reshape(matrix.shape[:-2])
    size = np.sqrt(np.sum(matrix**2, axis=(-1, -2)))
    return np.asarray(np.maximum(top + _ROUNDING * size, 0.0))


def eigenvalue_upper_bound(
    sample_eigenvalue: ArrayLike,
    draws: ArrayLike,
    alpha: float,
    value_range: ArrayLike,
    *,
    anytime: bool = False,
) -> Array:
    """Upper bound of the largest eigenvalue of E (u-a)(u-a)' 1_G, with probability at least 1 - alpha.

    At a number of draws fixed beforehand: n kl(sample/range, bound/range) <= ln(1/alpha) (Chernoff, Hoeffding 1963). At
    any time: the capitals exp(-eta sum X) / (1 - q + q exp(-eta))^t, X in [0, 1], are supermartingales if the mean of X
    is at least q, and so is their average over a few eta (Ville).

    Args:
        sample_eigenvalue: largest eigenvalue of (1/n) sum (u_i-a)(u_i-a)' 1_G, in [0, value_range]; a and G fixed
            beforehand.
        draws: n, >= 1; all draws count, also those outside G.
        alpha: failure probability, in (0,1).
        value_range: largest possible ||u-a||^2 in G, > 0: (1+||a||)^2 for unit features and no G.
        anytime: valid at every number of draws at once.

    Returns:
        The broadcast bound in [sample_eigenvalue, value_range], rounded up.

    Raises:
        ValueError: NaN or out of range.
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha={alpha} must be in (0, 1)")
    top = np.asarray(sample_eigenvalue, dtype=np.float64)
    scale, n = np.asarray(value_range, dtype=np.float64), np.asarray(draws, dtype=np.float64)
    if not ((scale > 0.0) & np.isfinite(scale)).all():
        raise ValueError("value_range must be a positive number")
    if not (n >= 1).all():
        raise ValueError("draws must be at least 1")
    top, n, scale = np.broadcast_arrays(top, n, scale)
    if not ((top >= 0.0) & (top <= scale * (1.0 + 1e-6))).all():
        raise ValueError("sample_eigenvalue must be between 0 and value_range; no draw can be farther from a")
    share = np.minimum(top / scale * (1.0 + _ROUNDING), 1.0)
    low, high = share.copy(), np.ones(share.shape)
    limit = math.log(1.0 / alpha) * (1.0 + 1e-12)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        evidence = _log_capital(share, middle, n) if anytime else n * _divergence(share, middle)
        inside = evidence <= limit
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return np.asarray(np.minimum(high * (1.0 + _ROUNDING), 1.0) * scale)


def _proved_eigenvalue(matrix: Array) -> float:
    """An upper bound of the largest eigenvalue, by a Cholesky factor above an estimate of it."""
    estimate = _estimate_eigenvalue(matrix)
    # A factor in floating point is an exact one of a matrix that differs by less than this (Higham 2002, theorem 10.3).
    rounding = 4.0 * len(matrix) ** 2 * np.finfo(np.float64).eps
    for above in _ABOVE:
        theta = estimate * (1.0 + above)
        shifted = -matrix
        shifted[np.diag_indices_from(shifted)] += theta
        _, failed = dpotrf(shifted.T, lower=1, clean=0, overwrite_a=1)
        if not failed:
            return theta * (1.0 + rounding)
    return float(np.linalg.eigvalsh(matrix)[-1])


def _estimate_eigenvalue(matrix: Array) -> float:
    """The largest eigenvalue, nearly, by Lanczos from a fixed start, with the error of its Ritz vector added."""
    vector = np.linalg.norm(matrix, axis=0) + 1e-300
    basis, tridiagonal = np.zeros((_STEPS, len(matrix))), np.zeros((_STEPS, _STEPS))
    length = float(np.linalg.norm(vector))
    for step in range(_STEPS):
        basis[step] = vector / length
        moved = matrix @ basis[step]
        tridiagonal[step, step] = basis[step] @ moved
        vector = moved - basis[: step + 1].T @ (basis[: step + 1] @ moved)
        length = float(np.linalg.norm(vector))
        if step + 1 == _STEPS or length <= 1e-12 * (1e-300 + tridiagonal[0, 0]):
            break
        tridiagonal[step, step + 1] = tridiagonal[step + 1, step] = length
    values, vectors = np.linalg.eigh(tridiagonal[: step + 1, : step + 1])
    return float(values[-1] + length * abs(vectors[-1, -1]))


def fix_ball(pilot: ArrayLike) -> tuple[Array, Array]:
    """The ball G of the draws' features: its centre a, the pilot's mean, and twice the largest squared distance.

    Args:
        pilot: (..., n0, d) features of pilot draws, which must not be used again.

    Returns:
        (centre (..., d), squared radius (...,)), the latter at most (1+||a||)^2, where G is certain.

    Raises:
        ValueError: a feature that is not finite, or no draws.
    """
    features = np.asarray(pilot, dtype=np.float64)
    if features.ndim < 2 or features.shape[-2] == 0 or not np.isfinite(features).all():
        raise ValueError("pilot must hold finite features (..., draws, d) of at least one draw")
    centre = features.mean(axis=-2)
    distance = np.sum((features - centre[..., None, :]) ** 2, axis=-1)
    everything = (1.0 + np.linalg.norm(centre, axis=-1)) ** 2
    # A pilot without any spread would make G a point.
    squared = np.clip(2.0 * distance.max(axis=-1), 1e-6, everything)
    return centre, np.asarray(squared)


def _divergence(p: Array, q: Array) -> Array:
    """Relative entropy of Bernoulli variables kl(p, q), infinite at q = 1 > p."""
    with np.errstate(divide="ignore"):
        return np.asarray(xlogy(p, p) - xlogy(p, q) + xlogy(1.0 - p, 1.0 - p) - xlogy(1.0 - p, 1.0 - q))


def _log_capital(share: Array, q: Array, n: Array) -> Array:
    etas = np.asarray(ETAS).reshape(-1, *(1,) * share.ndim)
    logs = -etas * share * n - n * np.log1p(q * np.expm1(-etas))
    top = logs.max(axis=0)
    return np.asarray(top + np.log(np.mean(np.exp(logs - top), axis=0)))
