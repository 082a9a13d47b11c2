"""One fixed direction that proves a T4 claim by itself, so that a sequential test needs only one mean.

With lambda fixed beforehand (on pilot draws), T4 reads: if <m(x), q> >= H for the one vector q = sum_i
lambda_i v_i, with H = E||L w + q|| - c, then <m(x+delta), w> <= c for every ||delta|| <= radius. As only
<m(x), q> is tested, the signs of lambda are free. The q returned is the best supporting line of the frontier:
the one from which the estimated m(x) is farthest.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from smoothcert.certificates.domain import FloatArray, numbers, shift_in_noise_units
from smoothcert.certificates.dual import plane_coordinates
from smoothcert.certificates.frontier import LARGEST_SHIFT, SMALLEST_SHIFT, Frontier, frontier
from smoothcert.certificates.likelihood import LikelihoodRatio
from smoothcert.certificates.projection import ROUNDING

_CELLS = 1600
# Directions whose inner products with the rest leave less than this are taken as dependent.
_RANK = 1e-10


def dual_direction(
    gram: ArrayLike, estimates: ArrayLike, radius: float, sigma: float, level: float = 0.0
) -> tuple[FloatArray, FloatArray]:
    """Weights lambda and a constant H: "<m(x), sum_i lambda_i v_i> >= H" implies the claim.

    The claim is <m(x+delta), w> <= level for every ||delta||_2 <= radius. It holds whatever the estimates
    were worth; they only choose among sound statements. sum_i lambda_i v_i is a unit vector q (unless the v_i
    leave none), so a mean score of (1 + H)/2 along q proves the claim.

    Args:
        gram: shape (..., k+1, k+1): inner products of the unit vectors (w, v_1, ..., v_k).
        estimates: shape (..., k): estimated <m(x), v_i>, in [-1,1], from pilot draws.
        radius: l2 radius, >= 0.
        sigma: noise standard deviation, > 0.
        level: c in [-1, 1]; 0 for a margin.

    Returns:
        (weights, needed) of shapes (..., k) and (...,). ``needed`` is rounded up; above 1 the claim cannot be
        proved this way, at -1 or below it is trivial.

    Raises:
        ValueError: NaN, out of range, or shapes that do not fit.
    """
    over = 1.0 + 1e-9
    g = numbers("gram", gram, -over, over)
    s = numbers("estimates", estimates, -1.0, 1.0)
    c = float(numbers("level", level, -1.0, 1.0))
    if s.ndim == 0 or g.ndim < 2 or g.shape[-1] != g.shape[-2] or g.shape[-1] != s.shape[-1] + 1:
        raise ValueError(f"gram {g.shape} must be (..., k+1, k+1) for estimates {s.shape} = (..., k)")
    rho = float(shift_in_noise_units(radius, sigma)[0])
    k = s.shape[-1]
    shape = np.broadcast_shapes(g.shape[:-2], s.shape[:-1])
    g = np.broadcast_to(g, (*shape, k + 1, k + 1)).reshape(-1, k + 1, k + 1)
    s = np.broadcast_to(s, (*shape, k)).reshape(-1, k)
    if c == 1.0:  # <m, w> <= 1 always
        weights, needed = _along(g, s), np.full(len(s), -2.0)
    elif c == -1.0 or rho > LARGEST_SHIFT:
        weights, needed = _along(g, s), np.full(len(s), 2.0)
    else:
        weights, needed = _choose(g, s, max(rho, SMALLEST_SHIFT), c)
    return weights.reshape(*shape, k), needed.reshape(shape)


@lru_cache(maxsize=64)
def _ratio(rho: float) -> LikelihoodRatio:
    return LikelihoodRatio(rho, cells=_CELLS, reach=8.5)


def _along(gram: FloatArray, s: FloatArray) -> FloatArray:
    """The first direction alone: some unit vector, where no choice matters."""
    weights = np.zeros(s.shape)
    weights[:, 0] = 1.0
    return weights


def _choose(gram: FloatArray, s: FloatArray, rho: float, level: float) -> tuple[FloatArray, FloatArray]:
    lines = frontier(rho, level)
    if s.shape[-1] == 1:
        # Only the length is free: that of the line with the same normal.
        theta = np.arcsin(-np.clip(gram[:, 0, 1], -1.0, 1.0))
        length = np.exp(np.interp(-theta, -lines.theta, np.log(lines.length)))
        weights = length[:, None]
    else:
        weights = _best_line(lines, gram, s)
    return _rigorous(gram, weights, rho, level)


def _best_line(lines: Frontier, gram: FloatArray, s: FloatArray) -> FloatArray:
    """The line that the estimate of m(x) is farthest beyond, among those the directions can make.

    The normals lie in the plane of w and m(x) as the directions see them; e is orthogonal to w there. When w
    sticks out of their span by some angle, a normal in the span reaches less far along w.
    """
    inner, towards_w = gram[:, 1:, 1:], gram[:, 0, 1:]
    inverse = np.linalg.pinv(inner, rcond=_RANK, hermitian=True)
    of_m, of_w = np.einsum("nij,nj->ni", inverse, s), np.einsum("nij,nj->ni", inverse, towards_w)
    seen = np.sqrt(np.clip(np.einsum("ni,ni->n", towards_w, of_w), 1e-12, 1.0))
    seen = np.where(seen > 1.0 - 1e-9, 1.0, seen)
    of_w /= seen[:, None]
    m_along = np.einsum("ni,ni->n", of_w, s)
    beside = of_m - m_along[:, None] * of_w
    t = np.sqrt(np.maximum(np.einsum("ni,nij,nj->n", beside, inner, beside), 0.0))
    along = -lines.sine / seen[:, None]
    across = np.sqrt(np.maximum(1.0 - along**2, 0.0))
    distance = t[:, None] * across + m_along[:, None] * along - lines.needed
    best = np.argmax(np.where(np.abs(along) <= 1.0, distance, -np.inf), axis=1)
    rows = np.arange(len(s))
    beside = np.divide(beside, t[:, None], out=np.zeros_like(beside), where=t[:, None] > 1e-9)
    normal = across[rows, best, None] * beside + along[rows, best, None] * of_w
    return np.asarray(lines.length[best, None] * normal)


def _rigorous(
    gram: FloatArray, weights: FloatArray, rho: float, level: float
) -> tuple[FloatArray, FloatArray]:
    """H for the weights as they came out of the arithmetic, both scaled to a unit q."""
    a, b = plane_coordinates(gram, weights)
    length = np.hypot(a, b)
    usable = length > 1e-9
    length = np.where(usable, length, 1.0)
    bound = np.empty(length.shape)
    ratio = _ratio(rho)
    for start in range(0, length.size, 256):
        rows = slice(start, start + 256)
        bound[rows] = ratio.expected_norm(a[rows], b[rows])
    needed = (bound - level) / length
    needed += ROUNDING * (1.0 + np.abs(needed))
    return weights / length[:, None], np.where(usable, needed, 2.0)
