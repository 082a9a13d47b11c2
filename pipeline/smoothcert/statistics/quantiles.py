"""Lower confidence bounds of quantiles by order statistics, without an attack and under one (docs/theory.md T9).

The k-th smallest of n draws lies above the q-quantile only if fewer than k draws fall below it, and at least a
share q of them is expected to. So the largest k at which a binomial variable with n and q is so small with
probability at most alpha gives a lower bound, whatever the distribution; ties only help.

At any time: the same with a capital instead of the binomial tail. With h of t draws below, the likelihood ratio of a
share p < q to the share q, mixed over p, is a non-negative supermartingale if the share is at least q; it falls in h.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, betainc, betaln

from smoothcert.certificates.vote import percentile_share

Array = NDArray[np.float64]
Ranks = NDArray[np.int64]

_SLACK = 1e-9
"""Relative, far above the error of the binomial tail and of the capital."""


def quantile_rank(draws: ArrayLike, share: ArrayLike, alpha: float, *, anytime: bool = False) -> Ranks:
    """The largest k such that the k-th smallest of so many draws is a lower bound of a quantile.

    P(Y < bound) < share holds with probability at least 1 - alpha: then the ``share`` quantile, inf{y: P(Y <= y) >=
    share}, is at least the bound.

    Args:
        draws: number of iid draws, >= 1.
        share: which quantile, in [0,1]; broadcasts against ``draws``.
        alpha: failure probability, in (0,1).
        anytime: False: exact binomial, for a number of draws fixed beforehand. True: valid at every number of draws
            at once, however it was stopped.

    Returns:
        The broadcast k in 0..draws; 0 where so few draws bound nothing.

    Raises:
        ValueError: no draws, a share outside [0,1], or alpha outside (0,1).
    """
    n = np.asarray(draws, dtype=np.int64)
    q = np.asarray(share, dtype=np.float64)
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha={alpha} must be in (0, 1)")
    if (n < 1).any():
        raise ValueError(f"draws={n.min()} must be at least 1")
    if not ((q >= 0.0) & (q <= 1.0)).all():
        raise ValueError(f"share={float(q[~((q >= 0.0) & (q <= 1.0))].flat[0])!r} must be in [0, 1]")
    n, q = np.broadcast_arrays(n, q)
    low, high = np.zeros(n.shape, dtype=np.int64), n + 1
    while (high - low > 1).any():
        middle = np.maximum((low + high) // 2, 1)
        fits = _is_rare(middle - 1, n, q, alpha, anytime)
        low, high = np.where(fits, middle, low), np.where(fits, high, np.maximum(middle, low + 1))
    return low


def percentile_bound(
    scores: ArrayLike,
    radius: ArrayLike,
    sigma: float,
    alpha: float,
    *,
    percentile: float = 0.5,
    counts: ArrayLike | None = None,
    anytime: bool = False,
) -> Array:
    """Lower bound of the ``percentile`` quantile of a score, for every ||delta||_2 <= radius (docs/theory.md T9).

    Each entry fails with probability at most alpha. Entries of one row at different radii use different order
    statistics, so that they are statements of their own; for one threshold fixed beforehand, the largest radius at
    which the bound reaches it fails with alpha as a whole (it is that of ``percentile_radius``).

    Args:
        scores: (..., n) finite numbers, iid draws along the last axis.
        radius: (m,) l2 radii, >= 0.
        sigma: noise standard deviation, > 0.
        alpha: failure probability, in (0,1).
        percentile: which quantile is deployed, in (0,1); 0.5 is the median.
        counts: (...) how many of each row's draws count, at least 1; all by default.
        anytime: see ``quantile_rank``.

    Returns:
        (..., m): order statistics of the scores; NaN (vacuous) where the draws are too few for the radius.

    Raises:
        ValueError: a score that counts is not finite, no draws, or a number out of range.
    """
    values = np.asarray(scores, dtype=np.float64)
    radii = np.atleast_1d(np.asarray(radius, dtype=np.float64))
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError("scores holds none; give an array (..., n) with n >= 1")
    if radii.ndim != 1:
        raise ValueError(f"radius has shape {radii.shape}; give a vector")
    shape, n = values.shape[:-1], values.shape[-1]
    used = np.broadcast_to(np.asarray(n if counts is None else counts, dtype=np.int64), shape)
    if (used < 1).any() or (used > n).any():
        raise ValueError(f"counts spans {used.min()}..{used.max()}; it must be between 1 and {n}")
    inside = np.arange(n) < used[..., None]
    if not np.isfinite(values[inside]).all():
        raise ValueError("scores holds NaN or an infinite number; every score that counts must be finite")
    ordered = np.sort(np.where(inside, values, np.inf), axis=-1)
    sizes, which = np.unique(used, return_inverse=True)
    share = percentile_share(percentile, radii, sigma)
    ranks = quantile_rank(sizes[:, None], share, alpha, anytime=anytime)[which.reshape(shape)]
    bound = np.take_along_axis(ordered, np.maximum(ranks - 1, 0), axis=-1)
    return np.where(ranks > 0, bound, np.nan)


def _is_rare(below: Ranks, draws: Ranks, share: Array, alpha: float, anytime: bool) -> NDArray[np.bool_]:
    """Whether so few draws below prove that less than ``share`` is expected there."""
    if not anytime:
        rare = bdtr(below.astype(np.float64), draws, share) <= alpha * (1.0 - _SLACK)
    else:
        h, rest, inner = below + 0.5, draws - below + 0.5, np.clip(share, 1e-300, 1.0 - 1e-16)
        with np.errstate(divide="ignore"):
            capital = betaln(h, rest) + np.log(betainc(h, rest, inner)) - betaln(0.5, 0.5)
            capital -= (
                np.log(betainc(0.5, 0.5, inner)) + below * np.log(inner) + (draws - below) * np.log1p(-inner)
            )
        rare = capital >= math.log(1.0 / alpha) + _SLACK * (1.0 + draws)
    return np.asarray((below < draws) & (share > 0.0) & rare)
