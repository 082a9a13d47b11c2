"""How far the similarity to a fixed text can fall: docs/theory.md T4 with w = -t, from two lower bounds."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from smoothcert.certificates.domain import FloatArray, numbers
from smoothcert.certificates.dual import dual_bound
from smoothcert.certificates.projection import projection_bound

# Inner products of unit vectors may leave [-1, 1] by rounding.
_OVER = 1e-9


def similarity_bound(
    similarity: ArrayLike, smooth_norm: ArrayLike, alignment: ArrayLike, radius: ArrayLike, sigma: ArrayLike
) -> FloatArray:
    """Lower bound of <m(x+delta), t> for every ||delta||_2 <= radius (docs/theory.md T4 and T1).

    Args:
        similarity: lower bound of <m(x), t> for a fixed unit vector t, in [-1,1].
        smooth_norm: lower bound of <m(x), v> for the pilot direction v, in [-1,1].
        alignment: <v, t>, known exactly, in [-1,1].
        radius: l2 radius, >= 0.
        sigma: noise standard deviation, > 0.

    Returns:
        The broadcast bound in [-1,1], rounded down. It may be negative: it bounds a projection, not a cosine. It
        fails with at most the sum of the failure probabilities of its two bounds.

    Raises:
        ValueError: NaN or out of range.
    """
    s = numbers("similarity", similarity, -1.0, 1.0)
    norm = numbers("smooth_norm", smooth_norm, -1.0, 1.0)
    a = np.clip(numbers("alignment", alignment, -1.0 - _OVER, 1.0 + _OVER), -1.0, 1.0)
    s, norm, a, rho, spread = np.broadcast_arrays(
        s, norm, a, np.asarray(radius, dtype=np.float64), np.asarray(sigma, dtype=np.float64)
    )
    one = np.ones_like(a)
    # (w, v_1, v_2) = (-t, t, pilot)
    gram = np.moveaxis(np.array([[one, -one, -a], [-one, one, a], [-a, a, one]]), (0, 1), (-2, -1))
    both = -dual_bound(gram, np.stack([s, norm], axis=-1), rho, spread)
    # T1 is T4 with the first bound alone: at small radii the search over both may end above it
    return np.maximum(both, projection_bound(s, rho, spread))
