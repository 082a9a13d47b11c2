"""Scalars that four numbers name, and the bounds that follow from the means of such scalars (docs/theory.md T8).

If the margin M of a draw were normal, with some centre and spread, the worst encoder would pair each M with one value
of the likelihood ratio L, and the best concave phi has that L as its slope there: phi'(centre - spread z) = L(z). Such
a phi, in pieces, is a ``MarginScalar`` that is written down as

    centre    of the law
    spread    of the law
    last      the z at which it ends: below that margin phi has no kink left
    shift     rho in L(z) = exp(rho z - rho^2/2): the shift that it suits best

Whatever these four numbers are, the scalar is sound, at every radius: a row keeps them, and anyone can compute anew
what the mean of the scalar proves. They stand in a list, ``LAW`` numbers of it, whose last is the mean score of the
draws, which nothing follows from: no lower bound of it may be larger.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smoothcert.certificates.domain import FloatArray, numbers
from smoothcert.certificates.frontier import LARGEST_SHIFT, SMALLEST_SHIFT
from smoothcert.certificates.margin_scalar import MarginScalar
from smoothcert.certificates.straight_scalar import is_straight, straight_bound

LAW = 5
"""Numbers that stand for one scalar: centre, spread, last, shift, and the mean score."""
LAW_RANGE = 10.0
"""Each of them is between minus and plus this."""

KNOTS = 14
"""Pieces that phi is cut into, less one."""
_COMMON = 3.0
"""Beyond this z on the side of large margins phi is nearly flat: one slope will do."""
_LEAST_SPREAD = 1e-4


def normal_scalar(law: ArrayLike) -> MarginScalar:
    """The scalars that rows of numbers stand for.

    Args:
        law: (rows, at least 4) centre, spread, last and shift, each within ``LAW_RANGE``.

    Returns:
        A scalar per row, of the margin alone.

    Raises:
        ValueError: NaN or out of range.
    """
    given = numbers("law", law, -LAW_RANGE, LAW_RANGE)
    center, spread, last, shift = np.moveaxis(given[:, :4], -1, 0)
    spread = np.maximum(spread, _LEAST_SPREAD)
    shift = np.clip(shift, SMALLEST_SHIFT, LARGEST_SHIFT)
    # z from the rare side to the common one, where the margins centre - spread z stay inside [-1, 1]
    first = np.minimum(last, (center + 1.0) / spread)
    common = np.minimum(np.maximum(-_COMMON, (center - 1.0) / spread), first)
    z = first[:, None] + (common - first)[:, None] * np.linspace(0.0, 1.0, KNOTS)
    knots = np.clip(center[:, None] - spread[:, None] * z, -1.0, 1.0)
    between = np.concatenate([z[:, :1], (z[:, 1:] + z[:, :-1]) / 2.0, z[:, -1:]], axis=-1)
    slopes = np.exp(shift[:, None] * between - shift[:, None] ** 2 / 2.0)
    zero = np.zeros(len(given))
    return MarginScalar(
        zero,
        np.maximum.accumulate(knots, axis=-1),
        np.minimum.accumulate(slopes, axis=-1),
        zero,
        zero,
        zero,
        np.zeros_like(knots),
    )


def distribution_bound(score: ArrayLike, law: ArrayLike, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """Lower bound of <m(x+delta), -w> for every ||delta||_2 <= radius, from the mean of one scalar (T8).

    Args:
        score: (...,) lower bound of the mean score of the scalar, in [0,1].
        law: (..., at least 4) the scalar, fixed before the draws that the bound rests on: see ``normal_scalar``, and
            where its shift is below 0 ``straight_law``.
        radius: l2 radius, >= 0.
        sigma: noise standard deviation, > 0.

    Returns:
        The broadcast bound in [-1,1], rounded down; NaN where the radius is too large to say anything. It may be
        negative: it bounds a projection, not a cosine. It fails with the failure probability of ``score``.

    Raises:
        ValueError: NaN or out of range.
    """
    known, given = np.asarray(score, dtype=np.float64), np.asarray(law, dtype=np.float64)
    shape = np.broadcast_shapes(known.shape, given.shape[:-1], np.shape(radius), np.shape(sigma))
    rows = np.broadcast_to(given, (*shape, given.shape[-1])).reshape(-1, given.shape[-1])
    share, at, spread = (
        np.broadcast_to(np.asarray(each, dtype=np.float64), shape).ravel() for each in (known, radius, sigma)
    )
    found, straight = np.empty(len(rows)), is_straight(numbers("law", rows, -LAW_RANGE, LAW_RANGE))
    for kind, bound in ((straight, straight_bound), (~straight, _bent_bound)):
        if kind.any():
            found[kind] = bound(share[kind], rows[kind], at[kind], spread[kind])
    return found.reshape(shape)


def _bent_bound(score: FloatArray, law: FloatArray, radius: FloatArray, sigma: FloatArray) -> FloatArray:
    """Of scalars of the margin alone: as ``straight_bound``."""
    scalar = normal_scalar(law)
    constant = scalar.constant(radius, sigma)
    usable = np.isfinite(constant)
    return np.where(usable, scalar.bound(np.where(usable, constant, 0.0), score), np.nan)


def cosine_distribution_bound(
    score: ArrayLike, law: ArrayLike, radius: ArrayLike, sigma: ArrayLike
) -> FloatArray:
    """Certified cosine between m(x+delta) and the fixed vector -w, for every ||delta||_2 <= radius (T8 and T2).

    Dividing by ||m|| <= 1 only helps a projection that is not negative; NaN (vacuous) where it may be. See
    ``distribution_bound``.
    """
    found = distribution_bound(score, law, radius, sigma)
    return np.where(found >= 0.0, found, np.nan)


def rival_distribution_bound(
    score: ArrayLike, law: ArrayLike, radius: ArrayLike, sigma: ArrayLike
) -> FloatArray:
    """Lower bound of the margin over rivals, of which the worst, or all of the rest together, have this scalar.

    NaN (vacuous) where it is not above 0: see ``distribution_bound``.
    """
    found = distribution_bound(score, law, radius, sigma)
    return np.where(found > 0.0, found, np.nan)


def law_of(
    center: FloatArray, spread: FloatArray, last: FloatArray, shift: FloatArray
) -> NDArray[np.float64]:
    """Numbers (rows, 4) that stand for a scalar, cut to few digits: they are kept with every row."""
    found = np.stack([np.round(center, 4), np.maximum(np.round(spread, 4), _LEAST_SPREAD), last, shift], -1)
    return np.asarray(np.clip(found, -LAW_RANGE, LAW_RANGE))
