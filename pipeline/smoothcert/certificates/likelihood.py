"""Rigorous upper bounds of E||L w + lambda||, the one expectation that T3 and T4 need.

L = exp(rho z - rho^2/2) with z ~ N(0,1) is the likelihood ratio of the shifted noise to the unshifted one.
With w a unit vector and lambda = b w + a e (e orthogonal to w), the integrand is f(L) = sqrt(a^2 + (L +
b)^2), which is convex in L. On each cell of a grid it therefore lies below its chord, and beyond the last
node below a line of slope 1. Replacing f by these lines replaces L by a discrete variable on the nodes that
dominates it in convex order: the sum over the nodes is an upper bound of the expectation *for every lambda*,
whatever the grid. The grid only decides how tight it is (looseness falls with the square of the step). What
is left is rounding, covered by a slack.

The grid is fixed in y = z - rho, where the shifted noise is standard normal and where, for small a, f has its
kink; it is finest there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtr

from smoothcert.certificates.domain import FloatArray

# Relative: rounding of the weights (1e-14) and of a sum of at most 5,000 positive terms (6e-13 at worst), and
# the Gauss-Legendre error of the weights. Absolute: the mass that a cell sends to its upper node is a
# difference of nearly equal numbers, but its error is multiplied by a chord's slope (at most 1) and a mass
# (in all 1).
RELATIVE_SLACK = 1e-12
ABSOLUTE_SLACK = 1e-14
_TERMS = 20
"""Terms of a power series in shift x (half a cell), which is at most 1.5: the rest is below 2e-15."""


@dataclass(frozen=True, slots=True)
class _Grid:
    """Nodes y, the shifted noise's mass of the cells, and their moments about the middle by factorials."""

    y: FloatArray
    mass: FloatArray
    moments: FloatArray


@lru_cache(maxsize=32)
def _grid(cells: int, reach: float, largest: float) -> _Grid:
    """A third of the nodes crowd around the kink at y = 0; the others lie where a noise has mass."""
    finest, bulk = 1e-4, 4.0
    start, stop = -(reach + largest), reach
    place = np.concatenate([finest * np.sinh(np.linspace(-13.0, 13.0, 4001)), [start, stop]])
    place = np.unique(place[(place >= start) & (place <= stop)])
    crowded = np.arcsinh(place / finest)
    # Beyond the bulk, just enough nodes for the series.
    even = np.clip(place, -(largest + bulk), bulk) + 0.3 * place
    progress = (crowded - crowded[0]) / np.ptp(crowded) + 2.0 * (even - even[0]) / np.ptp(even)
    y = np.interp(np.linspace(0.0, 3.0, cells + 1), progress, place)
    half = np.diff(y) / 2
    assert largest * half.max() <= 1.5, "too few cells for the series"
    points, point_weights = np.polynomial.legendre.leggauss(16)
    offset = half * points[:, None]
    density = np.exp(-((y[:-1] + half + offset) ** 2) / 2) / np.sqrt(2 * np.pi)
    density *= half * point_weights[:, None]
    moments = np.empty((_TERMS, cells))
    for k in range(_TERMS):
        moments[k] = density.sum(axis=0)
        density *= offset / (k + 1)
    return _Grid(y, moments[0], moments)


class LikelihoodRatio:
    """A discrete variable that dominates L in convex order, for one rho or for a column of them.

    Args:
        rho: shift in noise units, > 0; shape () or (rows,).
        cells: number of grid cells.
        reach: the grid covers ``reach`` standard deviations below the noise and above the shifted noise.

    Attributes:
        nodes: shape (..., cells + 2), increasing, the first being 0.
        weights: the same shape, non-negative, sum 1.
        tail: shape (...,): what the line of slope 1 beyond the last node adds.
    """

    def __init__(self, rho: FloatArray | float, *, cells: int, reach: float) -> None:
        shift = np.asarray(rho, dtype=np.float64)[..., None]
        grid = _grid(cells, reach, math.ceil(2.0 * float(shift.max(initial=0.0))) / 2.0)
        y, shifted_mass = grid.y, grid.mass
        ratio = np.exp(shift * y + shift**2 / 2)
        # The noise's own mass of a cell is E[1/L; cell] under the shifted noise: 1/L at the middle, times a
        # power series.
        series = np.power(-shift, np.arange(_TERMS)) @ grid.moments
        mass = series / np.sqrt(ratio[..., :-1] * ratio[..., 1:])
        up = np.clip((shifted_mass - ratio[..., :-1] * mass) / np.diff(ratio, axis=-1), 0.0, mass)
        below, above = ndtr(y[0] + shift), ndtr(-y[-1] - shift)
        at_first = np.minimum(ndtr(y[0]) / ratio[..., :1], below)
        weights = np.zeros((*ratio.shape[:-1], ratio.shape[-1] + 1))
        weights[..., :1] = below - at_first
        weights[..., 1:2] += at_first
        weights[..., 1:-1] += mass - up
        weights[..., 2:] += up
        weights[..., -1:] += above
        self.nodes: FloatArray = np.concatenate([np.zeros_like(ratio[..., :1]), ratio], axis=-1)
        self.weights: FloatArray = weights
        self.tail: FloatArray = np.maximum(ndtr(-y[-1]) - ratio[..., -1:] * above, 0.0)[..., 0]

    def expected_norm(self, a: FloatArray, b: FloatArray) -> FloatArray:
        """Upper bound of E sqrt(a^2 + (L+b)^2); a, b of shape (...,) broadcast against the rows of rho."""
        terms = np.add(self.nodes, b[..., None])
        np.square(terms, out=terms)
        terms += np.square(a)[..., None]
        np.sqrt(terms, out=terms)
        if self.weights.ndim == 1:
            total = terms @ self.weights
        else:
            total = np.einsum("...j,...j->...", terms, self.weights)
        return np.asarray((total + self.tail) * (1 + RELATIVE_SLACK) + ABSOLUTE_SLACK)
