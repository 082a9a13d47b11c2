"""Which scalar to fix on the pilot draws (docs/theory.md T8). Nothing here bears on soundness: any choice is sound.

If the law of M at x were known, the best phi would have at each M the slope L(z) of the noise z that the worst encoder
pairs it with: Phi(-z) = P(M' <= M). From a few dozen pilot draws the law is known roughly. Candidates take a normal law
with the pilot's mean, lowered a little, and its deviation, stretched a little, and end at some z: what lies below is
rarer than the draws can exclude, so it may as well be at M = -1. A lower bound of a mean lies about

    sqrt(2 Var(h) ln(1/alpha)/n) + (E h - least h) ln(1/alpha)/n

below it; the candidate is taken that should prove most, or prove the wanted level with the fewest draws.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from smoothcert.certificates.domain import FloatArray, numbers, shift_in_noise_units
from smoothcert.certificates.frontier import LARGEST_SHIFT, SMALLEST_SHIFT
from smoothcert.certificates.margin_scalar import MarginScalar

_LOWERED, _STRETCHED, _BEFORE_END = (0.0, 0.4), (1.0, 1.5, 2.5), (0.0, 0.5, 1.0, 1.5)
_KNOTS = 14
_LARGEST_Z = 3.0
"""Beyond this z on the side of large margins phi is nearly flat: one slope will do."""
_LEAST_DEVIATION = 1e-3


def choose_scalar(
    margins: ArrayLike,
    radius: ArrayLike,
    sigma: float,
    *,
    draws: int,
    alpha: float,
    level: float | None = None,
) -> MarginScalar:
    """The scalar of each row that should prove most at a radius, chosen on pilot draws.

    Args:
        margins: (rows, n0) M of the pilot draws, in [-1, 1]; they must not be used again.
        radius: l2 radius, >= 0, () or (rows,).
        sigma: noise standard deviation, > 0.
        draws: fresh draws that there will be at most.
        alpha: failure probability of the bound or test to come.
        level: None: for the best lower bound of <m(x+delta), -w> with so many draws. A number in [-1, 1]: for a test
            that it is at least this level, with as few draws as possible.

    Returns:
        A scalar per row, of the margin alone.

    Raises:
        ValueError: NaN, out of range, or no draws.
    """
    m = numbers("margins", margins, -1.0, 1.0)
    if m.ndim != 2 or m.shape[1] == 0:
        raise ValueError(f"margins has shape {m.shape}; give (rows, pilot draws) with at least one draw")
    if draws < 1 or not 0.0 < alpha < 1.0:
        raise ValueError(f"draws={draws} must be at least 1 and alpha={alpha} in (0, 1)")
    rho = np.broadcast_to(shift_in_noise_units(radius, sigma)[0], len(m))
    candidates, shape = _candidates(
        m, np.clip(rho, SMALLEST_SHIFT, LARGEST_SHIFT), math.log(1 / alpha) / draws
    )
    worth = _worth(candidates, m, np.repeat(rho, shape[1]), math.log(1 / alpha) / draws, level).reshape(shape)
    best = np.argmax(worth, axis=1) + shape[1] * np.arange(shape[0])
    return candidates.take(best)


def _candidates(m: FloatArray, rho: FloatArray, rarity: float) -> tuple[MarginScalar, tuple[int, int]]:
    """All candidates, those of one row after the other, and (rows, candidates of a row)."""
    end = -float(ndtri(min(rarity, 0.4)))
    grid = np.meshgrid(_LOWERED, _STRETCHED, end - np.array(_BEFORE_END), indexing="ij")
    lowered, stretched, last = (axis.ravel() for axis in grid)
    deviation = np.sqrt(m.var(axis=1) + _LEAST_DEVIATION**2)[:, None]
    center = m.mean(axis=1)[:, None] - lowered * deviation
    spread = stretched * deviation
    # z from the rare side to the common one, where the margins center - spread z stay inside [-1, 1]
    first = np.minimum(last, (center + 1.0) / spread)
    common = np.maximum(-_LARGEST_Z, (center - 1.0) / spread)
    common = np.minimum(common, first)
    z = first[..., None] + (common - first)[..., None] * np.linspace(0.0, 1.0, _KNOTS)
    knots = np.clip(center[..., None] - spread[..., None] * z, -1.0, 1.0)
    between = np.concatenate([z[..., :1], (z[..., 1:] + z[..., :-1]) / 2.0, z[..., -1:]], axis=-1)
    shift = rho[:, None, None]
    slopes = np.exp(shift * between - shift**2 / 2.0)
    rows, count = center.shape
    zero = np.zeros(rows * count)
    knots = np.maximum.accumulate(knots, axis=-1).reshape(rows * count, _KNOTS)
    slopes = np.minimum.accumulate(slopes, axis=-1).reshape(rows * count, _KNOTS + 1)
    return MarginScalar(zero, knots, slopes, zero, zero, zero, np.zeros_like(knots)), (rows, count)


def _worth(
    candidates: MarginScalar, m: FloatArray, rho: FloatArray, rarity: float, level: float | None
) -> FloatArray:
    """What each candidate should prove, on a scale on which more is better."""
    each = len(candidates.alignment) // max(len(m), 1)
    h = candidates.values(np.repeat(m, each, axis=0), np.zeros((1, 1)))
    mean, deviation = h.mean(axis=1), h.std(axis=1)
    constant = candidates.constant(np.minimum(rho, LARGEST_SHIFT), 1.0)
    least, _ = candidates.limits()
    room = np.maximum(mean - least, 0.0)
    proved = mean - constant - math.sqrt(2.0 * rarity) * deviation - rarity * room
    if level is None:
        return np.asarray(proved)
    # With x = sqrt(ln(1/alpha)/n): excess = sqrt(2) deviation x + room x^2. The larger x, the fewer draws.
    excess = mean - constant - level
    reach = np.sqrt(deviation**2 / 2.0 + room * np.maximum(excess, 0.0)) + deviation / math.sqrt(2.0)
    fewest = np.divide(excess, reach, out=np.zeros_like(excess), where=reach > 0.0)
    return np.asarray(np.where(excess > 0.0, fewest, np.minimum(proved - level, 0.0)))
