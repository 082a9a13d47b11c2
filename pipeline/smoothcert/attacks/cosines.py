"""Confidence bounds of cosines between smoothed features, from independent draws.

What is wanted is the cosine between m' = E[u'] (attacked) and a reference: a fixed unit vector v (the clean
feature, for FCSB) or the direction of m = E[u] (the smoothed clean feature, for the angular certificate).
Neither norm is known. With p' and p the normalised means of pilot draws, <m', p'> <= ‖m'‖ and |<m, p>| <=
‖m‖, so that for any b >= 0

    cos(m', v) >= b  implies  E[b <u', p'> - <u', v>] <= 0
    cos(m', m) >= b  implies  E[b <u, p> <u', p'> - <u, u'>] <= 0        (u, u' drawn independently)

A confidence lower bound above zero of either expectation therefore disproves "cosine >= b". The first
variable is bounded by ‖b p' - v‖, the second by the spectral norm of I - b p p'^T, both small where b is
near the truth and the draws agree: far tighter than bounding inner product and norms one by one.

The bound is the next point above the largest one, of a grid fixed on the pilot, that is not disproved. Only
the last grid point at or below the true cosine can do harm, so no failure probability is split over the
grid. It is never below 0: certificates are not, either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smoothcert.statistics import lower_bound
from smoothcert.statistics.betting import FRACTIONS, stakes

Array = NDArray[np.float64]

PILOT_SHARE = 4
"""At most one draw in so many fixes directions and grid."""
PILOT_DRAWS = 256
"""And never more than these: a better direction would gain less than the draws are worth."""
ROUNDING = 1e-6
"""Features are unit vectors up to this; ranges are widened by it."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with one-sided confidence bounds, each of which fails with probability at most alpha.

    Attributes:
        value: the estimate; NaN where the smoothed feature is lost in the noise.
        lower: lower bound.
        upper: upper bound; at least 0 unless the cosine is known exactly.
    """

    value: float
    lower: float
    upper: float


def exact(value: float) -> Interval:
    """A cosine that is known, as a subject without noise gives it."""
    return Interval(value, value, value)


def cosine_to_fixed(draws: Array, reference: Array, alpha: float) -> Interval:
    """Cosine between E[u'] and a fixed vector.

    Args:
        draws: (n, d), independent unit draws u', n >= 8.
        reference: (d,), chosen without looking at the draws.
        alpha: failure probability of each bound.
    """
    v = reference / np.linalg.norm(reference)
    pilot, rest = split(draws)
    p = _direction(pilot)
    along, apart = rest @ p, rest @ v
    grid = _grid(float(p @ v))
    reach = np.linalg.norm(grid[:, None] * p - v, axis=1)
    upper = _upper(grid, np.outer(grid, along) - apart, reach, alpha)
    lower = _lower(apart, [(along, _self_products(rest))], alpha)
    return Interval(_ratio(float((draws @ v).mean()), _norm_squared(draws)), lower, upper)


def cosine_between(attacked: Array, clean: Array, alpha: float) -> Interval:
    """Cosine between E[u'] and E[u].

    Args:
        attacked: (n, d), independent unit draws u', n >= 8.
        clean: (n, d), independent unit draws u, independent of ``attacked`` too.
        alpha: failure probability of each bound.
    """
    pilot, rest = split(attacked)
    clean_pilot, clean_rest = split(clean)
    p, clean_p = _direction(pilot), _direction(clean_pilot)
    along, clean_along = rest @ p, clean_rest @ clean_p
    product = np.einsum("nd,nd->n", rest, clean_rest)
    pilots = float(p @ clean_p)
    grid = _grid(pilots)
    upper = _upper(grid, np.outer(grid, along * clean_along) - product, _bilinear_reach(grid, pilots), alpha)
    norms = [(along, _self_products(rest)), (clean_along, _self_products(clean_rest))]
    squared = _norm_squared(attacked), _norm_squared(clean)
    inner = float(attacked.mean(axis=0) @ clean.mean(axis=0))
    value = _ratio(inner, squared[0] * squared[1]) if min(squared) > 0 else float("nan")
    return Interval(value, _lower(product, norms, alpha), upper)


def positive_means(values: Array, alpha: float) -> NDArray[np.bool_]:
    """Which means are above zero, each at failure probability ``alpha``: (..., n) in [-1, 1] -> (...,).

    The bet of docs/theory.md section 3.4 against a mean of at most 1/2 of (1 + value) / 2. It decides like
    ``lower_bound(..., "betting") > 1/2``, but without searching for the bound: a grid needs many decisions.
    """
    draws = (values + 1) / 2
    nothing = np.zeros((*values.shape[:-1], 1))
    sizes, _, _ = stakes(draws, alpha, nothing, nothing, nothing)
    logs = [np.log1p(np.minimum(sizes, 2 * share) * (draws - 0.5)).sum(axis=-1) for share in FRACTIONS]
    capital = np.logaddexp.reduce(logs, axis=0) - np.log(len(FRACTIONS))
    return np.asarray(capital >= np.log(1 / alpha) + ROUNDING)


def split(draws: Array) -> tuple[Array, Array]:
    """Draws that fix what must be fixed in advance, and fresh ones that bounds rest on."""
    size = min(len(draws) // PILOT_SHARE, PILOT_DRAWS)
    return draws[:size], draws[size:]


def _direction(draws: Array) -> Array:
    mean = draws.mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-300))


def _grid(guess: float) -> Array:
    """Cosines to disprove, finest around what the pilot suggests."""
    near = guess + np.arange(-0.05, 0.1001, 0.005)
    return np.unique(np.clip(np.concatenate((near, np.linspace(0, 1, 9))), 0.0, 1.0))


def _upper(grid: Array, values: Array, reach: Array, alpha: float) -> float:
    """The next grid point above the largest one that is not disproved.

    Args:
        grid: (g,), rising, from 0 to 1.
        values: (g, n), iid along n; a mean above zero disproves the grid point.
        reach: (g,), bound of the values' size.
        alpha: failure probability.
    """
    reach = reach[:, None] + ROUNDING
    standing = np.flatnonzero(~positive_means(np.clip(values / reach, -1.0, 1.0), alpha))
    if not len(standing):
        return 0.0
    return float(grid[min(int(standing[-1]) + 1, len(grid) - 1)])


def _bilinear_reach(b: Array, pilots: float) -> Array:
    """Spectral norm of I - b p p'^T, where <p, p'> = ``pilots``: it acts in the plane of p and p'."""
    stretch, slant = 1 - b * pilots, b * np.sqrt(max(1 - pilots**2, 0.0))
    frobenius = stretch**2 + slant**2 + 1
    root = np.sqrt(np.maximum(frobenius**2 - 4 * stretch**2, 0.0))
    return np.asarray(np.sqrt((frobenius + root) / 2))


def _lower(inner: Array, norms: list[tuple[Array, Array]], alpha: float) -> float:
    """Lower bound of E[inner] / product of norms.

    Args:
        inner: (n,), iid in [-1, 1].
        norms: for each norm, draws whose mean is at most the norm, and draws whose mean is its square.
        alpha: failure probability; every bound that may be used takes an equal part.
    """
    part = alpha / (1 + 2 * len(norms))
    below = mean_below(inner, part)
    if below >= 0:
        squares = [min(max(-mean_below(-square, part), 0.0), 1.0) for _, square in norms]
        product = float(np.sqrt(np.prod(squares)))
        return min(below / product, 1.0) if product > 0 else 0.0
    product = float(np.prod([max(mean_below(along, part), 0.0) for along, _ in norms]))
    return max(below / product, -1.0) if product > 0 else -1.0


def mean_below(values: Array, alpha: float) -> float:
    """Lower confidence bound of the mean of iid values in [-1, 1]."""
    return float(2 * lower_bound(np.clip((values + 1) / 2, 0.0, 1.0), alpha, "betting") - 1) - ROUNDING


def _self_products(draws: Array) -> Array:
    """Inner products of neighbouring draws: iid, with mean ‖E[u]‖²."""
    half = len(draws) // 2
    return np.asarray(np.einsum("nd,nd->n", draws[0 : 2 * half : 2], draws[1 : 2 * half : 2]))


def _norm_squared(draws: Array) -> float:
    """Unbiased estimate of ‖E[u]‖²: the mean inner product of different draws."""
    count, total = len(draws), draws.sum(axis=0)
    return float((total @ total - np.einsum("nd,nd->", draws, draws)) / (count * (count - 1)))


def _ratio(inner: float, squared: float) -> float:
    return float(np.clip(inner / np.sqrt(squared), -1, 1)) if squared > 0 else float("nan")
