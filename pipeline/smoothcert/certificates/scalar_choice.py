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
from smoothcert.certificates.normal_scalar import law_of, normal_scalar

_LOWERED, _STRETCHED, _BEFORE_END = (0.0, 0.4), (1.0, 1.5, 2.5), (0.0, 0.5)
_LEAST_DEVIATION = 1e-3


def choose_law(
    margins: ArrayLike,
    radius: ArrayLike,
    sigma: float,
    *,
    draws: int,
    alpha: float,
    level: float | None = None,
) -> tuple[FloatArray, FloatArray]:
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
        (laws, worth): (rows, 4) numbers that stand for a scalar of the margin alone (``normal_scalar``), and (rows,)
        what it promises: the bound, or of a test the more the fewer draws it should need, and below 0 where none.

    Raises:
        ValueError: NaN, out of range, or no draws.
    """
    m = numbers("margins", margins, -1.0, 1.0)
    if m.ndim != 2 or m.shape[1] == 0:
        raise ValueError(f"margins has shape {m.shape}; give (rows, pilot draws) with at least one draw")
    if draws < 1 or not 0.0 < alpha < 1.0:
        raise ValueError(f"draws={draws} must be at least 1 and alpha={alpha} in (0, 1)")
    rho = np.broadcast_to(shift_in_noise_units(radius, sigma)[0], len(m))
    rarity = math.log(1 / alpha) / draws
    laws, each = _candidates(m, np.clip(rho, SMALLEST_SHIFT, LARGEST_SHIFT), rarity)
    worth = _worth(normal_scalar(laws), m, np.repeat(rho, each), rarity, level).reshape(-1, each)
    best = np.argmax(worth, axis=1) + each * np.arange(len(m))
    return laws[best], worth.max(axis=1)


def _candidates(m: FloatArray, rho: FloatArray, rarity: float) -> tuple[FloatArray, int]:
    """The laws of all candidates, those of one row after the other, and how many a row has."""
    end = -float(ndtri(min(rarity, 0.4)))
    grid = np.meshgrid(_LOWERED, _STRETCHED, end - np.array(_BEFORE_END), indexing="ij")
    lowered, stretched, last = (axis.ravel() for axis in grid)
    deviation = np.sqrt(m.var(axis=1) + _LEAST_DEVIATION**2)[:, None]
    center = m.mean(axis=1)[:, None] - lowered * deviation
    shape = center.shape
    spread, last = stretched * deviation, np.broadcast_to(np.round(last, 3), shape)
    shift = np.broadcast_to(rho[:, None], shape)
    return law_of(*(each.ravel() for each in (center, spread, last, shift))), shape[1]


def _worth(
    candidates: MarginScalar, m: FloatArray, rho: FloatArray, rarity: float, level: float | None
) -> FloatArray:
    """What each candidate should prove, on a scale on which more is better."""
    mean, deviation = candidates.phi_moments(m)
    constant = candidates.constant(np.minimum(rho, LARGEST_SHIFT), 1.0)
    least, _ = candidates.limits()
    room = np.maximum(mean - least, 0.0)
    proved = mean - constant - math.sqrt(2.0 * rarity) * deviation - rarity * room
    if level is None:
        return np.asarray(proved)
    return speed_of_test(mean - constant - level, deviation, room, proved - level)


def speed_of_test(
    excess: FloatArray, deviation: FloatArray, room: FloatArray, proved: FloatArray
) -> FloatArray:
    """How few draws a test should need, on a scale on which more is fewer; at most 0 where it should never end.

    Args:
        excess: by how much the mean exceeds what is needed.
        deviation: standard deviation of the draws.
        room: by how much the mean exceeds the least that one draw can be.
        proved: what the draws should leave of the excess.
    """
    # With x = sqrt(ln(1/alpha)/n): excess = sqrt(2) deviation x + room x^2. The larger x, the fewer draws.
    reach = np.sqrt(deviation**2 / 2.0 + room * np.maximum(excess, 0.0)) + deviation / math.sqrt(2.0)
    fewest = np.divide(excess, reach, out=np.zeros_like(excess), where=reach > 0.0)
    return np.asarray(np.where(excess > 0.0, fewest, np.minimum(proved, 0.0)))


def choose_scalar(
    margins: ArrayLike,
    radius: ArrayLike,
    sigma: float,
    *,
    draws: int,
    alpha: float,
    level: float | None = None,
) -> MarginScalar:
    """The scalars that ``choose_law`` chooses."""
    laws, _ = choose_law(margins, radius, sigma, draws=draws, alpha=alpha, level=level)
    return normal_scalar(laws)
