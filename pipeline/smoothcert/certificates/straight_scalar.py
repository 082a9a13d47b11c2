"""T4's mixture of margin and pilot direction as a scalar that four numbers name (docs/theory.md T4, T8).

Where T4 proves more than the distribution of margins, a row keeps its multipliers in the place of a law: h(u) =
<u, lambda> with lambda = l_1 (-w) + l_v v is a straight line in the margin and in <u, v>, and its mean proves what the
two bounds that it came from prove. The numbers are

    ln l_1    multiplier of the margin; -10 stands for none
    ln l_v    multiplier of the pilot direction; -10 stands for none
    <v, w>    inner product of pilot direction and rival
    -1        what no shift of a law is: a sign that the four numbers are these
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smoothcert.certificates.domain import FloatArray, numbers, shift_in_noise_units
from smoothcert.certificates.dual import best_multipliers, expected_norm
from smoothcert.certificates.frontier import LARGEST_SHIFT
from smoothcert.certificates.projection import ROUNDING

_LEAST_LOG, _MOST_LOG = -10.0, 10.0
_MARK = -1.0
_SHORTEST = 1e-12


def is_straight(law: FloatArray) -> NDArray[np.bool_]:
    """(...,) whether numbers (..., at least 4) name a straight scalar and no law."""
    return np.asarray(law[..., 3] < 0.0)


def straight_law(
    margin: ArrayLike | None, smooth_norm: ArrayLike, alignment: ArrayLike, radius: ArrayLike, sigma: float
) -> FloatArray:
    """The straight scalar that proves most of <m(x+delta), -w> at a radius.

    It may be chosen on the very bounds that it is used with: they hold together, whatever is made of them.

    Args:
        margin: (rows,) lower bounds of <m(x), -w>, in [-1,1]; None to use the pilot direction alone.
        smooth_norm: (rows,) lower bounds of <m(x), v> for the pilot direction v, in [-1,1].
        alignment: (rows,) <v, w>, known exactly, in [-1,1].
        radius: l2 radius, >= 0, () or (rows,).
        sigma: noise standard deviation, > 0.

    Returns:
        (rows, 4) numbers, cut to few digits: they are kept with the row.

    Raises:
        ValueError: NaN or out of range.
    """
    norm, g = numbers("smooth_norm", smooth_norm, -1.0, 1.0), numbers("alignment", alignment, -1.0, 1.0)
    if margin is None:
        lower, gram = norm[:, None], _gram(g)[:, [0, 2]][:, :, [0, 2]]
    else:
        lower, gram = np.stack([numbers("margin", margin, -1.0, 1.0), norm], axis=-1), _gram(g)
    weights = best_multipliers(gram, lower, radius, sigma)
    if margin is None:
        weights = np.concatenate([np.zeros_like(weights), weights], axis=-1)
    logs = np.log(np.maximum(weights, np.exp(2.0 * _LEAST_LOG)))
    return np.concatenate(
        [np.clip(np.round(logs, 6), _LEAST_LOG, _MOST_LOG), g[:, None], np.full((len(g), 1), _MARK)], axis=-1
    )


def straight_score(law: ArrayLike, margin: ArrayLike, smooth_norm: ArrayLike) -> FloatArray:
    """(rows,) mean score in [0,1] of straight scalars, from means of <u, -w> and <u, v> or lower bounds of them.

    The score is (1 + <u, q>)/2 along the unit vector q of lambda. It is rounded down.
    """
    first, second, _, length = _lambda(np.asarray(law, dtype=np.float64))
    along = (first * np.asarray(margin) + second * np.asarray(smooth_norm)) / length
    return np.asarray(np.clip((1.0 + along) / 2.0 - ROUNDING, 0.0, 1.0))


def straight_bound(score: ArrayLike, law: ArrayLike, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """Lower bound of <m(x+delta), -w> for every ||delta||_2 <= radius, from the mean score of a straight scalar (T4).

    Args:
        score: (rows,) lower bounds of the mean score, in [0,1].
        law: (rows, at least 4) the scalars: see ``straight_law``.
        radius: l2 radius, >= 0, () or (rows,).
        sigma: noise standard deviation, > 0, () or (rows,).

    Returns:
        (rows,) bounds in [-1,1], rounded down; NaN where the radius is too large to say anything. They fail with the
        failure probability of ``score``.

    Raises:
        ValueError: NaN or out of range.
    """
    given, share = np.asarray(law, dtype=np.float64), numbers("score", score, 0.0, 1.0)
    first, second, g, length = _lambda(given)
    rho = np.broadcast_to(shift_in_noise_units(radius, sigma)[0], g.shape)
    usable = rho <= LARGEST_SHIFT
    most = expected_norm(_gram(g), np.stack([first, second], axis=-1), np.where(usable, rho, 0.0), 1.0)
    proved = (2.0 * share - 1.0) * length - most
    return np.where(usable, np.clip(proved - ROUNDING * (1.0 + first + second), -1.0, 1.0), np.nan)


def _lambda(law: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Multipliers of -w and v, <v, w>, and the length of lambda, rounded down, (rows,) each."""
    logs, g = law[:, :2], np.clip(law[:, 2], -1.0, 1.0)
    first, second = np.where(logs <= _LEAST_LOG, 0.0, np.exp(np.minimum(logs, _MOST_LOG))).T
    square = first**2 + second**2 - 2.0 * first * second * g
    return first, second, g, np.maximum(np.sqrt(np.maximum(square, 0.0)), _SHORTEST)


def _gram(alignment: FloatArray) -> FloatArray:
    """(rows, 3, 3) inner products of w, -w and v."""
    gram = np.empty((len(alignment), 3, 3))
    gram[:] = [[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    gram[:, 0, 2] = gram[:, 2, 0] = alignment
    gram[:, 1, 2] = gram[:, 2, 1] = -alignment
    return gram
