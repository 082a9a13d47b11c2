"""Radius of a prediction or a ranking: docs/theory.md T4 with two directions.

A class y beats a rival c at x + delta as long as <m(x+delta), w> < 0 with w = (t_c - t_y)/||t_c - t_y||.
Known are lower bounds of the margin <m(x), -w> and of <m(x), v> along the pilot direction v, and alignment =
<v, w> exactly. In the plane of w and v, m(x) = (t, -s), and T4 asks how far it is from the frontier of T3:

- the margin alone gives T1, sigma Phi^-1((1+margin)/2) (Cohen et al. 2019, Salman et al. 2019);
- the pilot direction alone gives a radius to rivals whose margin was not measured;
- both together give at least the better of the two, and usually far more.

Each needs its own lower bound; the failure probability of a radius is the sum of theirs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from smoothcert.certificates.atlas import certified_shift, certified_shift_of_direction
from smoothcert.certificates.domain import FloatArray, numbers, positive
from smoothcert.certificates.frontier import LARGEST_SHIFT
from smoothcert.certificates.projection import ROUNDING, quantile_of_mean

# Inner products of unit vectors may leave [-1, 1] by rounding.
_OVER = 1e-9
# Nearer to (anti)parallel than this, the second direction adds nothing that rounding would not eat.
_PARALLEL = 1e-6


def margin_radius(
    margin: ArrayLike | None, smooth_norm: ArrayLike, alignment: ArrayLike, sigma: ArrayLike
) -> FloatArray:
    """Radius within which <m(x+delta), w> stays below 0 (docs/theory.md T4, two directions).

    Args:
        margin: lower bound of <m(x), -w>, in [-1,1]; None to use the pilot direction alone.
        smooth_norm: lower bound of <m(x), v> for the pilot direction v, in [-1,1].
        alignment: <v, w>, known exactly, in [-1,1].
        sigma: noise standard deviation, > 0.

    Returns:
        The broadcast radius, rounded down, at least that of T1 and at most LARGEST_SHIFT sigma; NaN where not
        even radius 0 is certified.

    Raises:
        ValueError: NaN or out of range.
    """
    norm = numbers("smooth_norm", smooth_norm, -1.0, 1.0)
    g = np.clip(numbers("alignment", alignment, -1.0 - _OVER, 1.0 + _OVER), -1.0, 1.0)
    spread = positive("sigma", sigma)
    s = np.float64(-1.0) if margin is None else numbers("margin", margin, -1.0, 1.0)
    s, norm, g, spread = np.broadcast_arrays(s, norm, g, spread)
    shape, rows = s.shape, (s.ravel(), norm.ravel(), g.ravel())
    shift = _direction_shift(*rows[1:]) if margin is None else _plane_shift(*rows)
    shift = np.fmax(shift, np.clip(quantile_of_mean(rows[0]) - ROUNDING, 0.0, LARGEST_SHIFT)).reshape(shape)
    return np.where(shift > 0.0, shift * spread * (1 - ROUNDING), np.nan)


def rank_radius(radii: ArrayLike, k: int = 1) -> FloatArray:
    """Radius within which at most k - 1 rivals can overtake, so that the rank stays at most k.

    For k = 1 this is the smallest radius. It needs no correction for the number of rivals: if the claim is
    false, then some rival truly overtakes within the radius; of the rivals, take the one whose true radius is
    smallest. It is fixed before the draws, and its own bound must have failed. For rank at most k, one of k
    such fixed rivals must have failed: give every radius the level alpha/k.

    Args:
        radii: shape (..., rivals); NaN certifies nothing and counts as radius 0.
        k: wanted rank, at least 1.

    Returns:
        Shape (...,): the k-th smallest radius; NaN where that one is vacuous; inf with fewer than k rivals.

    Raises:
        ValueError: k < 1, no axis of rivals, or a negative radius.
    """
    if k < 1:
        raise ValueError(f"k={k} must be at least 1")
    array = np.atleast_1d(np.asarray(radii, dtype=np.float64))
    if np.any(array < 0):
        raise ValueError("radii must not be negative; a vacuous radius is NaN")
    if array.shape[-1] < k:
        return np.full(array.shape[:-1], np.inf)
    failing_closed = np.where(np.isnan(array), -1.0, array)
    kth = np.sort(failing_closed, axis=-1)[..., k - 1]
    return np.where(kth < 0.0, np.nan, kth)


def _plane_shift(s: FloatArray, norm: FloatArray, g: FloatArray) -> FloatArray:
    """Shift from both bounds, where they determine a point with a margin and a component beside w; rows (n,).

    Where the best multiplier of the margin would be negative, the margin is no help beside the pilot
    direction.
    """
    sine = np.sqrt((1.0 - g) * (1.0 + g))
    with np.errstate(divide="ignore", invalid="ignore"):
        beside = (norm + g * s - 4e-16) / sine
        # Multipliers must not be negative: b <= a g / sine, kept also after rounding.
        steepest = g / sine
        steepest -= 4e-16 * (1.0 + np.abs(steepest))
    use = (sine > _PARALLEL) & (s > 0.0) & (beside > 0.0)
    shift, pilot_only = np.zeros(s.shape), np.array(~use)
    shift[use], pilot_only[use] = certified_shift(beside[use], s[use], steepest[use])
    shift[pilot_only] = np.fmax(shift[pilot_only], _direction_shift(norm[pilot_only], g[pilot_only]))
    return shift


def _direction_shift(norm: FloatArray, g: FloatArray) -> FloatArray:
    """Shift from the pilot direction alone, which must point away from w; rows (n,)."""
    result = np.zeros(norm.shape)
    away = np.arcsin(-np.clip(g, -1.0, 0.0))
    use = (g < 0.0) & (norm > 0.0)
    # Nearly antiparallel: at 90 degrees the table ends, and T1 says the same.
    theta = np.minimum(away[use], np.pi / 2 - _PARALLEL)
    result[use] = certified_shift_of_direction(norm[use], theta)
    return result
