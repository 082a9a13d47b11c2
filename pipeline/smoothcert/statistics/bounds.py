"""Lower confidence bounds for the mean of draws in [0, 1] (docs/theory.md section 3)."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

from smoothcert.statistics.betting import Bets, betting_lower_bound

Array = NDArray[np.float64]
Method = Literal["betting", "empirical_bernstein", "hoeffding", "clopper_pearson"]

_ROUNDING = 1e-13
"""More than the floating point error of a mean of numbers in [0, 1], summed pairwise, and of its bound. It is
absolute: where mean and gap nearly cancel, the error is large beside the bound."""


def lower_bound(
    draws: ArrayLike,
    alpha: float,
    method: Method = "betting",
    *,
    counts: ArrayLike | None = None,
    bets: Bets | None = None,
) -> Array:
    """Lower confidence bound of the mean of iid draws in [0, 1].

    Holds with probability at least 1 - alpha: ``betting`` at any stopping time, the others at a number of
    draws that was fixed beforehand. ``1 - lower_bound(1 - draws)`` is an upper bound.

    Args:
        draws: (..., n) in [0, 1]; for ``clopper_pearson`` zeros and ones.
        alpha: failure probability, in (0, 1).
        method: ``betting`` (Waudby-Smith and Ramdas 2023), ``empirical_bernstein`` (Maurer and Pontil 2009),
            ``hoeffding``, or ``clopper_pearson`` for votes.
        counts: (...) how many of each row's draws count, at least 1; all by default.
        bets: for ``betting``: how to bet, chosen on pilot draws, one row for each of the flattened (...).

    Returns:
        (...) bounds in [0, 1], never above the sample mean, rounded down.

    Raises:
        ValueError: a draw is NaN or outside [0, 1], alpha outside (0, 1), an unknown method, or no draws.
    """
    values = np.asarray(draws, dtype=np.float64)
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha={alpha} must be in (0, 1)")
    if method not in get_args(Method):
        raise ValueError(f"method='{method}' is unknown; use one of {', '.join(get_args(Method))}")
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError("draws holds none; give an array (..., n) with n >= 1")
    shape, n = values.shape[:-1], values.shape[-1]
    flat = values.reshape(-1, n)
    if bets is not None and (method != "betting" or len(bets.mean) != len(flat)):
        raise ValueError(f"bets are for method='betting', one row for each of the {len(flat)} rows of draws")
    used = np.full(len(flat), n, dtype=np.int64)
    if counts is not None:
        used = np.broadcast_to(np.asarray(counts, dtype=np.int64), shape).reshape(-1)
        if (used < 1).any() or (used > n).any():
            raise ValueError(
                f"counts spans {used.min()}..{used.max()}; it must be between 1 and {n}, the length of the last "
                "axis of draws"
            )
        if (used < n).any():
            flat = np.where(np.arange(n) < used[:, None], flat, 0.0)
    if flat.size and not (flat.min() >= 0.0 and flat.max() <= 1.0):  # NaN is the minimum of all
        outside = flat[~((flat >= 0.0) & (flat <= 1.0))]
        raise ValueError(f"draws holds {outside[0]}; every draw that counts must be in [0, 1], and not NaN")
    mean = flat.sum(axis=1) / used
    match method:
        case "betting":
            bound = betting_lower_bound(flat, used, alpha, bets)
        case "empirical_bernstein":
            bound = _empirical_bernstein(flat, used, mean, alpha)
        case "hoeffding":
            bound = mean - np.sqrt(np.log(1.0 / alpha) / (2.0 * used)) - _ROUNDING
        case "clopper_pearson":
            bound = _clopper_pearson(flat, used, alpha)
    return np.asarray(np.clip(np.minimum(bound, mean), 0.0, 1.0).reshape(shape))


def _empirical_bernstein(flat: Array, used: NDArray[np.int64], mean: Array, alpha: float) -> Array:
    inside = np.arange(flat.shape[1]) < used[:, None]
    squares = (np.where(inside, flat - mean[:, None], 0.0) ** 2).sum(axis=1)
    log_term = np.log(2.0 / alpha)
    enough = np.maximum(used - 1, 1)
    gap = np.sqrt(2.0 * squares / enough * log_term / used) + 7.0 * log_term / (3.0 * enough)
    bound = mean - gap * (1.0 + _ROUNDING) - _ROUNDING
    return np.where(used > 1, bound, 0.0)


def _clopper_pearson(flat: Array, used: NDArray[np.int64], alpha: float) -> Array:
    if not np.isin(flat, (0.0, 1.0)).all():
        raise ValueError("clopper_pearson takes votes: every draw must be 0 or 1")
    return vote_share_bound(flat.sum(axis=1), used, alpha)


def vote_share_bound(votes: ArrayLike, draws: ArrayLike, alpha: ArrayLike) -> Array:
    """Exact lower confidence bound of a share of votes, from how many there were (Clopper and Pearson 1934).

    Args:
        votes: number of draws that voted for it, in 0..draws.
        draws: number of draws, fixed beforehand, >= 1.
        alpha: failure probability, in (0, 1).

    Returns:
        The broadcast bound in [0, 1), rounded down.

    Raises:
        ValueError: a number is NaN or out of range.
    """
    hits, n, level = (np.asarray(each, dtype=np.float64) for each in (votes, draws, alpha))
    if not ((hits >= 0) & (hits <= n) & (n >= 1) & (level > 0) & (level < 1)).all():
        raise ValueError("votes must be in 0..draws, draws at least 1, and alpha in (0, 1)")
    quantile = betaincinv(np.maximum(hits, 1.0), n - hits + 1.0, level)
    # the inverse is accurate to a few units in the last place
    return np.where(hits > 0, quantile * (1.0 - 1e-12), 0.0)
