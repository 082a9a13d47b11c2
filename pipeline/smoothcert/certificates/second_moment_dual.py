"""The dual of docs/theory.md T7, for rows side by side: its value with a proved error, and good multipliers.

Put m(x) = N (cos psi, -sin psi) in the plane of t = (1, 0) and w = (0, 1), let y = <u, w> and beta = <m, w> = -N sin
psi. Known are E 1_G (y - beta)^2 <= spread and P(not G) <= rare, for some event G of the draw. For all multipliers a,
mu, nu >= 0 and b

    <m(x+delta), w> <= E_z max( max_u [ <u, (a, L+b)> - mu y^2 ],  max_u <u, (a, L+b - 2 mu beta)> + mu beta^2 - nu )
                       - N (a cos psi - b sin psi) + mu (spread + beta^2) + nu rare

and an angle of psi or more is excluded where the right side is negative. It is the dual of docs/theory.md, the square
multiplied out, b standing for its b + 2 mu beta: so written it is *convex* in N for fixed multipliers (maxima of linear
functions of N, and squares), and negative on an interval if it is negative at both ends. With the square left as (y -
beta)^2 and b fixed it is concave in N, and the ends would prove nothing about what lies between.

Both maxima are maxima of linear functions of L with slopes y in [-1, 1]: convex, so that the grid of
``LikelihoodRatio`` bounds their expectation from above.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from smoothcert.certificates.domain import FloatArray
from smoothcert.certificates.likelihood import ABSOLUTE_SLACK, RELATIVE_SLACK, LikelihoodRatio
from smoothcert.certificates.parabola import largest_value, summit

_LEAST_BARRIER = 1e-5
_RECEDE = 0.1
_ENOUGH, _PART = 1e-5, 0.05
"""A step that gains less, in parts of <m, -w> or of the value, is the last."""
_SUMMIT_STEPS = 5


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the rows: all (rows,).

    Attributes:
        norm: N, or the end of its interval that is looked at.
        spread: bound of E 1_G (y - beta)^2 for every unit w.
        rare: bound of P(not G); 0 where G is certain.
    """

    norm: FloatArray
    spread: FloatArray
    rare: FloatArray

    def take(self, rows: NDArray[np.intp]) -> Facts:
        """Some rows."""
        return Facts(self.norm[rows], self.spread[rows], self.rare[rows])


def dual_value(
    ratio: LikelihoodRatio, facts: Facts, psi: FloatArray, multipliers: FloatArray, nu: FloatArray
) -> FloatArray:
    """The right side, rounded up: (rows,) for multipliers (rows, 3) = (a, b, mu) and nu (rows,)."""
    a, b, mu = (column[:, None] for column in multipliers.T)
    sine, cosine = np.sin(psi), np.cos(psi)
    beta = (-facts.norm * sine)[:, None]
    slope = ratio.nodes + b
    most = largest_value(slope, a, mu, summit(slope, a, mu, _SUMMIT_STEPS))
    escape = np.hypot(slope - 2.0 * mu * beta, a) + mu * beta**2 - nu[:, None]
    most = np.where(facts.rare[:, None] > 0.0, np.maximum(most, escape), most)
    expected = _expect(ratio, most) + ratio.tail
    a, b, mu, beta = a[:, 0], b[:, 0], mu[:, 0], beta[:, 0]
    known = facts.norm * (a * cosine - b * sine)
    paid = mu * (facts.spread + beta**2) + np.where(facts.rare > 0.0, nu * facts.rare, 0.0)
    slack = RELATIVE_SLACK * (_expect(ratio, np.abs(most)) + ratio.tail + np.abs(known) + paid)
    slack += RELATIVE_SLACK * (np.abs(a) + np.abs(b) + np.abs(nu)) + ABSOLUTE_SLACK
    return np.asarray(expected - known + paid + slack)


def improve(
    ratio: LikelihoodRatio,
    escaping: FloatArray,
    facts: Facts,
    psi: FloatArray,
    multipliers: FloatArray,
    steps: int,
    barrier: float = _LEAST_BARRIER,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Damped Newton steps towards the least right side at fixed angles; nu is always the best for the others.

    The right side is convex, but has kinks where a and mu vanish: a logarithmic barrier keeps them off, and recedes.

    Args:
        ratio: a coarse grid with one row for each; nothing here needs to be precise.
        escaping: (rows, nodes) from ``escaping_share``.
        facts: the rows.
        psi: (rows,) angles.
        multipliers: (rows, 3) where to start, a and mu positive.
        steps: at most so many.
        barrier: its height at the start, in parts of <m, -w>; lower where the start is good.

    Returns:
        (multipliers, value, slope): the value is approximate, the slope its derivative in psi.
    """
    here = multipliers.copy()
    value, gradient, hessian, slope = _derivatives(ratio, escaping, facts, psi, here)
    damping = np.full(value.shape, 1e-4)
    scale = facts.norm * np.sin(psi)
    height = barrier * scale
    rows = np.arange(value.size)
    for _ in range(steps):
        now, tall = here[rows], height[rows]
        trial = now + _step(gradient[rows], hessian[rows], damping[rows], now, tall)
        trial[:, ::2] = np.maximum(trial[:, ::2], 0.1 * now[:, ::2])
        found = _derivatives(rows_of(ratio, rows), escaping[rows], facts.take(rows), psi[rows], trial)
        gain = value[rows] - found[0] + tall * np.sum(np.log(trial[:, ::2] / now[:, ::2]), axis=1)
        better = gain > 0.0
        taken = rows[better]
        here[taken] = trial[better]
        for state, new in zip((value, gradient, hessian, slope), found, strict=True):
            state[taken] = new[better]
        low = tall <= _LEAST_BARRIER * scale[rows] * 1.001
        height[taken] = np.maximum(_RECEDE * height[taken], _LEAST_BARRIER * scale[taken])
        damping[rows] *= np.where(better, 0.1, 10.0)
        # what another angle would change more is not worth a step
        enough = np.maximum(_ENOUGH * scale[rows], _PART * np.abs(value[rows]))
        rows = rows[np.where(better, (gain > enough) | ~low, damping[rows] < 1e6)]
        if not rows.size:
            break
    return here, value, slope


def rows_of(ratio: LikelihoodRatio, rows: NDArray[np.intp]) -> LikelihoodRatio:
    """Some rows of a grid that has one row for each of several shifts."""
    part = object.__new__(LikelihoodRatio)
    part.nodes, part.weights, part.tail = ratio.nodes[rows], ratio.weights[rows], ratio.tail[rows]
    return part


def joined_rows(parts: Sequence[LikelihoodRatio], order: NDArray[np.intp]) -> LikelihoodRatio:
    """The rows of several grids with as many cells, in another order."""
    whole = object.__new__(LikelihoodRatio)
    whole.nodes = np.concatenate([part.nodes for part in parts])[order]
    whole.weights = np.concatenate([part.weights for part in parts])[order]
    whole.tail = np.concatenate([part.tail for part in parts])[order]
    return whole


def _step(
    gradient: FloatArray, hessian: FloatArray, damping: FloatArray, now: FloatArray, height: FloatArray
) -> FloatArray:
    """Damped Newton step of the right side and the barrier."""
    inverse = np.zeros(now.shape)
    inverse[:, ::2] = 1.0 / now[:, ::2]
    matrix = hessian.copy()
    diagonal = np.einsum("nii->ni", matrix)
    diagonal += height[:, None] * inverse**2
    diagonal *= 1.0 + damping[:, None] + 1e-12
    diagonal += 1e-14 * diagonal.max(axis=1, keepdims=True) + 1e-300
    return np.asarray(-np.linalg.solve(matrix, (gradient - height[:, None] * inverse)[..., None])[..., 0])


def best_nu(rho: FloatArray, facts: Facts, psi: FloatArray, multipliers: FloatArray) -> FloatArray:
    """The price nu (rows,) at which the escape is worth it with probability ``rare``: beyond a quantile of L."""
    a, b, mu = multipliers.T
    beta = -facts.norm * np.sin(psi)
    slope = np.exp(-rho * ndtri(np.maximum(facts.rare, 1e-300)) - rho**2 / 2.0) + b
    inside = largest_value(slope, a, mu, summit(slope, a, mu))
    return np.asarray(np.maximum(np.hypot(slope - 2.0 * mu * beta, a) + mu * beta**2 - inside, 0.0))


def escaping_share(ratio: LikelihoodRatio, rare: FloatArray) -> FloatArray:
    """(rows, nodes) which part of each node's mass lies among the largest L of probability ``rare`` in all."""
    above = np.cumsum(ratio.weights[:, ::-1], axis=1)[:, ::-1]
    left = rare[:, None] - (above - ratio.weights)
    return np.clip(
        np.divide(left, ratio.weights, out=np.zeros_like(left), where=ratio.weights > 0.0), 0.0, 1.0
    )


def _derivatives(
    ratio: LikelihoodRatio, escaping: FloatArray, facts: Facts, psi: FloatArray, multipliers: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Value, gradient (rows, 3), Hessian (rows, 3, 3) in (a, b, mu), and the derivative in psi.

    At the best nu the escape takes exactly the mass ``rare`` where L is largest, and nu itself cancels.
    """
    a, b, mu = (column[:, None] for column in multipliers.T)
    sine, cosine, norm = np.sin(psi), np.cos(psi), facts.norm
    beta = (-norm * sine)[:, None]
    slope = ratio.nodes + b
    y = summit(slope, a, mu, _SUMMIT_STEPS)
    x = np.sqrt(np.maximum(1.0 - y**2, 1e-24))
    inside = ratio.weights * (1.0 - escaping)
    value = np.einsum("ij,ij->i", largest_value(slope, a, mu, y), inside)
    # derivatives of the maximum by the multipliers, and how its place moves with them
    first, move = np.stack([x, y, -(y**2)]), np.stack([-y / x, np.ones_like(y), -2.0 * y])
    mean = np.einsum("kij,ij->ik", first, inside)
    bend = inside / ((a + 1e-12) / (x * x * x) + 2.0 * mu)
    hessian = np.einsum("kij,lij,ij->ikl", move, move, bend)
    by_beta = np.zeros(norm.shape)
    if escaping.any():
        out = ratio.weights * escaping
        free = slope - 2.0 * mu * beta
        length = np.maximum(np.hypot(free, a), 1e-300)
        y, x = free / length, a / length
        value += np.einsum("ij,ij->i", length + mu * beta**2, out)
        first, move = np.stack([x, y, beta**2 - 2.0 * beta * y]), np.stack([-y, x, -2.0 * beta * x])
        mean += np.einsum("kij,ij->ik", first, out)
        hessian += np.einsum("kij,lij,ij->ikl", move, move, out / length)
        by_beta = np.einsum("ij,ij->i", 2.0 * mu * (beta - y), out)
    a, b, mu, beta = a[:, 0], b[:, 0], mu[:, 0], beta[:, 0]
    value += ratio.tail - norm * (a * cosine - b * sine) + mu * (facts.spread + beta**2)
    gradient = mean + np.stack([-norm * cosine, norm * sine, facts.spread + beta**2], axis=1)
    gradient[:, 1] += ratio.tail
    by_psi = norm * (a * sine + b * cosine) - norm * cosine * (2.0 * mu * beta + by_beta)
    return value, gradient, hessian, by_psi


def _expect(ratio: LikelihoodRatio, values: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("ij,ij->i", values, ratio.weights))
