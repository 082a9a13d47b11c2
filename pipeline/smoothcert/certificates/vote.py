"""Two other rules of decision on the same draws (docs/theory.md T9): the vote, and the percentile of a score.

They are statements about *different deployed systems* than the smoothed mean: one that answers with the class which
wins most draws, one that answers with a percentile of the scores that its draws got. Both rest on Neyman and
Pearson's lemma for one event A of the noise: P(A) >= p without an attack implies P(A) >= Phi(Phi^-1(p) - rho) under any
of at most rho noise units. For the vote A is "the draw votes for y" (Cohen et al. 2019, arXiv 1902.02918), for the
percentile "the score is at least t" (Chiang et al. 2020, arXiv 2007.03730).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from smoothcert.certificates.domain import FloatArray, numbers, positive, shift_in_noise_units
from smoothcert.certificates.projection import ROUNDING, quantile_of_mean

PERCENTILE_SHIFTS = tuple(j / 8.0 for j in range(25))
"""Attacks, in noise units, at which bounds of shifted quantiles are kept."""

# Relative error of ndtr, and of its argument, in the tails that are used.
_TAIL = 1e-12


def vote_radius(share_lcb: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """Radius within which a class keeps more than half of the votes (docs/theory.md T9).

    Args:
        share_lcb: lower bound of the probability that a draw votes for the class, in [0,1]. The class is fixed
            beforehand (on pilot draws); a draw without a vote is one against it.
        sigma: noise standard deviation, > 0.

    Returns:
        The broadcast sigma Phi^-1(share_lcb), rounded down and finite; NaN (the rule abstains) where the bound is not
        above 1/2.

    Raises:
        ValueError: NaN or out of range.
    """
    share, spread = numbers("share_lcb", share_lcb, 0.0, 1.0), positive("sigma", sigma)
    # 2p - 1 is exact in floating point from 1/4 on.
    radius = spread * np.maximum(quantile_of_mean(2.0 * share - 1.0) - ROUNDING, 0.0) * (1 - ROUNDING)
    return np.where((share > 0.5) & (spread > 0.0), radius, np.nan)


def vote_reach(draws: ArrayLike, alpha: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """Largest radius that a number of draws fixed beforehand can certify by vote, should all of them agree.

    The exact lower bound of n votes out of n is alpha^(1/n), so the reach is sigma Phi^-1(alpha^(1/n)).

    Args:
        draws: votes counted, >= 1.
        alpha: failure probability, in (0,1].
        sigma: noise standard deviation, > 0.

    Returns:
        The broadcast radius, at least 0; targets beyond it are out of reach before any work is done.

    Raises:
        ValueError: NaN or out of range.
    """
    n = numbers("draws", draws, 1.0, np.finfo(np.float64).max)
    level, spread = numbers("alpha", alpha, 0.0, 1.0, low_open=True), positive("sigma", sigma)
    missing = -np.expm1(np.log(level) / n)
    return np.asarray(spread * np.maximum(-ndtri(np.clip(missing, np.finfo(np.float64).tiny, 1.0)), 0.0))


def percentile_share(percentile: ArrayLike, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """Which quantile without an attack bounds the ``percentile`` quantile under one (docs/theory.md T9).

    If P(Y < t) < q* = Phi(Phi^-1(q) - rho) at x, then P(Y < t) < q at every x + delta with ||delta||_2 <= radius, so
    that the q-quantile there, inf{y: P(Y <= y) >= q}, is at least t.

    Args:
        percentile: q in (0,1); 0.5 is the median.
        radius: l2 radius, >= 0.
        sigma: noise standard deviation, > 0.

    Returns:
        The broadcast q* in [0, q], rounded down. At 0 nothing can be certified.

    Raises:
        ValueError: NaN or out of range.
    """
    q = _inner_percentile(percentile)
    rho, _ = shift_in_noise_units(radius, sigma)
    return np.asarray(ndtr(ndtri(q) - rho) * (1 - _TAIL))


def percentile_radius(exceedance_lcb: ArrayLike, percentile: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """Radius within which the ``percentile`` quantile of a score stays at least a threshold (docs/theory.md T9).

    Args:
        exceedance_lcb: lower bound of P(Y >= t) for the one threshold t fixed beforehand, in [0,1].
        percentile: q in (0,1); 0.5 is the median, for which this is ``vote_radius``.
        sigma: noise standard deviation, > 0.

    Returns:
        The broadcast sigma (Phi^-1(exceedance_lcb) - Phi^-1(1-q)), rounded down and finite; NaN where not even radius 0
        holds.

    Raises:
        ValueError: NaN or out of range.
    """
    p, q = numbers("exceedance_lcb", exceedance_lcb, 0.0, 1.0), _inner_percentile(percentile)
    spread = positive("sigma", sigma)
    # Phi^-1(1-q) = -Phi^-1(q); a p below 1/4 loses digits in 2p - 1, and has its own form.
    own = np.where(p < 0.25, ndtri(np.maximum(p, np.finfo(np.float64).tiny)), quantile_of_mean(2.0 * p - 1.0))
    shift = own + ndtri(q)
    shift = shift - _TAIL * (1.0 + np.abs(own))
    return np.where((p > 0.0) & (shift > 0.0), spread * np.maximum(shift, 0.0) * (1 - ROUNDING), np.nan)


def shifted_percentile(quantiles: ArrayLike, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """The percentile of a score in [-1,1] within a radius, from bounds of the quantiles that it is shifted to.

    Args:
        quantiles: (..., 25) lower bounds, never rising, of the quantiles that ``percentile_share`` gives at each of
            ``PERCENTILE_SHIFTS`` times sigma; -1 for nothing.
        radius: l2 radius, >= 0, broadcasting against the leading axes. It counts up to the next of the shifts.
        sigma: noise standard deviation, > 0.

    Returns:
        (...) the bound of the percentile under every attack within the radius; NaN where nothing is certified.

    Raises:
        ValueError: NaN or out of range.
    """
    bounds = _quantiles(quantiles)
    rho, _ = shift_in_noise_units(radius, sigma)
    # a shift that exceeds a kept one by rounding alone: what ``percentile_share`` is rounded down by covers it
    place = np.searchsorted(np.array(PERCENTILE_SHIFTS) * (1 + ROUNDING), rho)
    beyond = place >= len(PERCENTILE_SHIFTS)
    place = np.where(beyond, 0, place)
    shape = np.broadcast_shapes(bounds.shape[:-1], place.shape)
    kept = np.broadcast_to(bounds, (*shape, bounds.shape[-1]))
    found = np.take_along_axis(kept, np.broadcast_to(place, shape)[..., None], axis=-1)[..., 0]
    return np.where(beyond | (found <= -1.0), np.nan, found)


def shifted_percentile_radius(quantiles: ArrayLike, level: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """The largest of the kept shifts up to which a percentile is at least a level fixed beforehand.

    Args:
        quantiles: as of ``shifted_percentile``.
        level: in (-1,1], broadcasting against the leading axes.
        sigma: noise standard deviation, > 0.

    Returns:
        (...) the radius, rounded down; NaN where not even radius 0 holds.

    Raises:
        ValueError: NaN or out of range.
    """
    bounds, spread = _quantiles(quantiles), positive("sigma", sigma)
    wanted = numbers("level", level, -1.0, 1.0, low_open=True)
    # the first that fails ends it
    kept = np.logical_and.accumulate(bounds >= wanted[..., None], axis=-1).sum(axis=-1)
    shift = np.array(PERCENTILE_SHIFTS)[np.maximum(kept - 1, 0)]
    return np.where(kept > 0, spread * shift * (1 - ROUNDING), np.nan)


def _quantiles(quantiles: ArrayLike) -> FloatArray:
    bounds = numbers("quantiles", quantiles, -1.0, 1.0)
    if bounds.ndim == 0 or bounds.shape[-1] != len(PERCENTILE_SHIFTS):
        raise ValueError(
            f"quantiles has shape {bounds.shape}; its last axis needs {len(PERCENTILE_SHIFTS)} numbers, one for "
            "each of PERCENTILE_SHIFTS"
        )
    return bounds


def _inner_percentile(percentile: ArrayLike) -> FloatArray:
    q = numbers("percentile", percentile, 0.0, 1.0, low_open=True)
    if np.any(q == 1.0):
        raise ValueError("percentile=1 is outside (0, 1); 0.5 is the median")
    return q
