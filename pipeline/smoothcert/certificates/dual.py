"""The general margin bound for k directions (docs/theory.md T4): an upper bound of <m(x+delta), w>.

    <m(x+delta), w> <= E||L w + sum_i lambda_i v_i|| - sum_i lambda_i s_i      for every lambda >= 0

Only inner products enter. The right side is convex in lambda; it is minimised by a projected, damped Newton
method on a coarse grid, and then evaluated rigorously at whatever lambda came out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smoothcert.certificates.domain import FloatArray, numbers, shift_in_noise_units
from smoothcert.certificates.frontier import LARGEST_SHIFT, SMALLEST_SHIFT
from smoothcert.certificates.likelihood import LikelihoodRatio
from smoothcert.certificates.projection import ROUNDING

_COARSE, _FINE = 300, 1600
_ROWS_AT_ONCE = 256
_ITERATIONS = 60
# Steps that gain less end the search: the bound's own grid is coarser than that.
_ENOUGH = 1e-8
# Multipliers beyond this come only from contradictory lower bounds (no m of norm at most 1 meets them all).
_LARGEST_MULTIPLIER = 1e7


def dual_bound(
    gram: ArrayLike,
    lower: ArrayLike,
    radius: ArrayLike,
    sigma: ArrayLike,
    weights: ArrayLike | None = None,
) -> FloatArray:
    """Upper bound of <m(x+delta), w> for every ||delta||_2 <= radius (docs/theory.md T4, k directions).

    Args:
        gram: shape (..., k+1, k+1): inner products of the unit vectors (w, v_1, ..., v_k).
        lower: shape (..., k): lower bounds of <m(x), v_i>, in [-1,1]. Their failure probabilities add up.
        radius: l2 radius, >= 0, shape (...,).
        sigma: noise standard deviation, > 0, shape (...,).
        weights: shape (..., k), lambda >= 0 to use as they are; by default the best ones are searched.

    Returns:
        Shape (...,): the bound in [-1, 1], rounded up. The claim "<m(x+delta), w> < 0" is certified where it
        is negative; minus the bound for w = -t is a lower bound of the similarity to t.

    Raises:
        ValueError: NaN, out of range, shapes that do not fit, or a gram matrix that is none.
    """
    g, s, rho = _check(gram, lower, radius, sigma)
    shape, k = rho.shape, s.shape[-1]
    g, s, rho = g.reshape(-1, k + 1, k + 1), s.reshape(-1, k), rho.reshape(-1)
    given = None
    if weights is not None:
        top = float(np.finfo(np.float64).max)
        given = np.broadcast_to(numbers("weights", weights, 0.0, top), (*shape, k)).reshape(-1, k)
    result = np.ones(rho.size)
    usable = rho <= LARGEST_SHIFT
    for shift in np.unique(rho[usable]):
        ratio = LikelihoodRatio(max(float(shift), SMALLEST_SHIFT), cells=_FINE, reach=8.5)
        coarse = LikelihoodRatio(max(float(shift), SMALLEST_SHIFT), cells=_COARSE, reach=7.0)
        same = np.flatnonzero(rho == shift)
        for start in range(0, same.size, _ROWS_AT_ONCE):
            rows = same[start : start + _ROWS_AT_ONCE]
            chosen = _best(coarse, g[rows], s[rows], float(shift)) if given is None else given[rows]
            result[rows] = _value(ratio, g[rows], s[rows], chosen)
    return np.clip(result, -1.0, 1.0).reshape(shape)


def best_multipliers(gram: ArrayLike, lower: ArrayLike, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """The multipliers that ``dual_bound`` searches: (rows, k), each >= 0.

    Args:
        gram: (rows, k+1, k+1), as for ``dual_bound``.
        lower: (rows, k).
        radius: l2 radius, >= 0, () or (rows,).
        sigma: noise standard deviation, > 0.

    Raises:
        ValueError: as ``dual_bound``.
    """
    g, s, rho = _check(gram, lower, radius, sigma)
    found = np.zeros(s.shape)
    shifts = np.clip(rho, SMALLEST_SHIFT, LARGEST_SHIFT)
    for shift in np.unique(shifts):
        ratio = LikelihoodRatio(float(shift), cells=_COARSE, reach=7.0)
        rows = np.flatnonzero(shifts == shift)
        found[rows] = _best(ratio, g[rows], s[rows], float(shift))
    return found


def expected_norm(gram: FloatArray, weights: FloatArray, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """(rows,) E||L w + sum_i lambda_i v_i|| for multipliers lambda >= 0, rounded up.

    Args:
        gram: (rows, k+1, k+1) inner products of the unit vectors (w, v_1, ..., v_k).
        weights: (rows, k) lambda.
        radius: l2 radius, >= 0 and at most LARGEST_SHIFT sigma, () or (rows,).
        sigma: noise standard deviation, > 0.
    """
    a, b = plane_coordinates(gram, weights)
    shifts = np.broadcast_to(np.maximum(shift_in_noise_units(radius, sigma)[0], SMALLEST_SHIFT), a.shape)
    found = np.empty(a.shape)
    for shift in np.unique(shifts):
        ratio = LikelihoodRatio(float(shift), cells=_FINE, reach=8.5)
        rows = np.flatnonzero(shifts == shift)
        found[rows] = ratio.expected_norm(a[rows], b[rows])
    return found


def plane_coordinates(gram: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(a, b) of lambda = sum_i lambda_i v_i: its length beside w (rounded up), and its component along w."""
    inner = gram[..., 1:, 1:]
    b = np.einsum("...i,...i->...", gram[..., 0, 1:], weights)
    square = np.einsum("...i,...ij,...j->...", weights, inner, weights)
    # The square is a difference that cancels; what it lost is added back.
    lost = 4e-16 * (weights.shape[-1] + 2) * np.sum(np.abs(weights), axis=-1) ** 2
    return np.sqrt(np.maximum(square - b**2 + lost, 0.0)), b


def _value(ratio: LikelihoodRatio, gram: FloatArray, lower: FloatArray, weights: FloatArray) -> FloatArray:
    a, b = plane_coordinates(gram, weights)
    known = np.einsum("ni,ni->n", weights, lower)
    rounding = ROUNDING * (1.0 + np.sum(np.abs(weights), axis=-1))
    return np.asarray(ratio.expected_norm(a, b) - known + rounding)


def _check(
    gram: ArrayLike, lower: ArrayLike, radius: ArrayLike, sigma: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    over = 1.0 + 1e-9
    g = numbers("gram", gram, -over, over)
    s = numbers("lower", lower, -1.0, 1.0)
    if s.ndim == 0 or g.ndim < 2 or g.shape[-1] != g.shape[-2] or g.shape[-1] != s.shape[-1] + 1:
        raise ValueError(f"gram {g.shape} must be (..., k+1, k+1) for lower {s.shape} = (..., k)")
    diagonal = np.diagonal(g, axis1=-2, axis2=-1)
    if np.any(np.abs(diagonal - 1.0) > 1e-6) or np.any(np.abs(g - np.swapaxes(g, -1, -2)) > 1e-9):
        raise ValueError("gram must be symmetric with a diagonal of ones: normalise w and the directions")
    rho, _ = shift_in_noise_units(radius, sigma)
    shape = np.broadcast_shapes(rho.shape, s.shape[:-1], g.shape[:-2])
    k = s.shape[-1]
    return (
        np.broadcast_to(g, (*shape, k + 1, k + 1)),
        np.broadcast_to(s, (*shape, k)),
        np.broadcast_to(rho, shape),
    )


def _best(ratio: LikelihoodRatio, gram: FloatArray, lower: FloatArray, rho: float) -> FloatArray:
    """Multipliers that minimise the bound, (rows, k): damped Newton steps on those not held at 0."""
    k = lower.shape[-1]
    scale = float(np.exp(min(rho**2 / 2, 30.0)))
    weights = np.full(lower.shape, scale / k)
    value, gradient, hessian = _derivatives(ratio, gram, lower, weights)
    damping = np.full(value.shape, 1e-3)
    rows = np.arange(value.size)
    for _ in range(_ITERATIONS):
        held = (weights[rows] <= 0.0) & (gradient[rows] > 0.0)
        step = _newton_step(gradient[rows], hessian[rows], damping[rows], held)
        trial = np.clip(weights[rows] + step, 0.0, _LARGEST_MULTIPLIER)
        new_value, new_gradient, new_hessian = _derivatives(ratio, gram[rows], lower[rows], trial)
        gain = value[rows] - new_value
        better = gain > 0.0
        done = (np.abs(gain) <= _ENOUGH) & (damping[rows] <= 1.0) | (damping[rows] > 1e8)
        taken = rows[better]
        weights[taken], value[taken] = trial[better], new_value[better]
        gradient[taken], hessian[taken] = new_gradient[better], new_hessian[better]
        damping[rows] = np.where(better, damping[rows] * 0.1, damping[rows] * 10.0)
        rows = rows[~done]
        if rows.size == 0:
            break
    return weights


def _newton_step(
    gradient: FloatArray, hessian: FloatArray, damping: FloatArray, held: NDArray[np.bool_]
) -> FloatArray:
    k = gradient.shape[-1]
    free = ~held
    matrix = hessian * (free[:, :, None] & free[:, None, :])
    size = np.trace(hessian, axis1=-2, axis2=-1) / k + 1e-12
    index = np.arange(k)
    matrix[:, index, index] += damping[:, None] * size[:, None] + 1e-12 + held
    wanted = (gradient * free)[..., None]
    try:
        step = np.linalg.solve(matrix, wanted)
    except np.linalg.LinAlgError:
        # dependent directions at a scale where the damping drowns: the shortest step will do, since any multiplier
        # is sound and only those that improve the bound are taken
        step = np.linalg.pinv(np.nan_to_num(matrix), hermitian=True) @ wanted
    return np.asarray(-step[..., 0])


def _derivatives(
    ratio: LikelihoodRatio, gram: FloatArray, lower: FloatArray, weights: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Value, gradient and Hessian of E||L w + lambda|| - <lambda, s> on the coarse grid.

    The norm is blurred by the distance of the nodes: where lambda is parallel to w it has a kink, and without the
    blur the sum would be linear between nodes.
    """
    towards_w, inner = gram[:, 0, 1:], gram[:, 1:, 1:]
    along = np.einsum("nij,nj->ni", inner, weights)
    a, b = plane_coordinates(gram, weights)
    norms = ratio.nodes + b[:, None]
    np.square(norms, out=norms)
    norms += np.square(a)[:, None] + np.square(np.gradient(ratio.nodes))
    np.sqrt(norms, out=norms)
    value = norms @ ratio.weights + ratio.tail - np.einsum("ni,ni->n", weights, lower)
    first, second = ratio.weights * ratio.nodes, ratio.weights * ratio.nodes**2
    inverse = 1.0 / norms
    e0, e1 = (inverse @ np.stack([ratio.weights, first], axis=1)).T
    cubed = inverse**3
    c0, c1, c2 = (cubed @ np.stack([ratio.weights, first, second], axis=1)).T
    gradient = towards_w * (e1 + ratio.tail)[:, None] + along * e0[:, None] - lower
    crossed = towards_w[:, :, None] * along[:, None, :]
    hessian = (
        inner * e0[:, None, None]
        - towards_w[:, :, None] * towards_w[:, None, :] * c2[:, None, None]
        - (crossed + np.swapaxes(crossed, 1, 2)) * c1[:, None, None]
        - along[:, :, None] * along[:, None, :] * c0[:, None, None]
    )
    return value, gradient, hessian
