"""The dual of docs/theory.md T7, for rows side by side: its value with a proved error, and good multipliers.

Put m(x) = N (cos psi, -sin psi) in the plane of t = (1, 0) and w = (0, 1), let y = <u, w> and beta = <m, w> = -N sin
psi. Known are E 1_G (y - beta)^2 <= spread and P(not G) <= rare, for some event G of the draw. For all multipliers a,
mu, nu >= 0 and b

    <m(x+delta), w> <= E_z max( max_u [ <u, (a, L+b)> - mu y^2 ],  max_u <u, (a, L+b - 2 mu beta)> + mu beta^2 - nu )
                       - N (a cos psi - b sin psi) + mu (spread + beta^2) + nu rare

and an angle of psi or more is excluded where the right side is negative. It is the dual of docs/theory.md, the square
multiplied out, b standing for its kappa_2 + 2 mu beta. That it is negative at a lower bound of N is enough: an encoder
with a larger one, shortened to that N, satisfies the same facts (the proof there).

Both maxima are maxima of linear functions of L with slopes y in [-1, 1]: convex, so that the grid of
``LikelihoodRatio`` bounds their expectation from above.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
        norm: N, or a lower bound of it.
        spread: bound of E 1_G (y - beta)^2 for every unit w.
        rare: bound of P(not G); 0 where G is certain.
    """

    norm: FloatArray
    spread: FloatArray
    rare: FloatArray

    def take(self, rows: NDArray[np.intp]) -> Facts:
        """Some rows."""
        return Facts(self.norm[rows], self.spread[rows], self.rare[rows])


def largest_inside(ratio: LikelihoodRatio, multipliers: FloatArray) -> FloatArray:
    """(rows, nodes) upper bounds of the first maximum, in which neither N nor psi occurs."""
    a, b, mu = (column[:, None] for column in multipliers.T)
    slope = ratio.nodes + b
    return largest_value(slope, a, mu, summit(slope, a, mu, _SUMMIT_STEPS))


def dual_value(
    ratio: LikelihoodRatio,
    facts: Facts,
    psi: FloatArray,
    multipliers: FloatArray,
    nu: FloatArray,
    inside: FloatArray | None = None,
) -> FloatArray:
    """The right side, rounded up: (rows,) for multipliers (rows, 3) = (a, b, mu) and nu (rows,).

    ``inside`` is ``largest_inside`` of the same grid and multipliers, where it is known already.
    """
    a, b, mu = (column[:, None] for column in multipliers.T)
    sine, cosine = np.sin(psi), np.cos(psi)
    beta = (-facts.norm * sine)[:, None]
    most = largest_inside(ratio, multipliers) if inside is None else inside
    if facts.rare.any():
        escape = np.hypot(ratio.nodes + b - 2.0 * mu * beta, a) + mu * beta**2 - nu[:, None]
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
    value, gradient, hessian, slope, _ = expansion(ratio, escaping, facts, psi, here)
    damping = np.full(value.shape, 1e-4)
    scale = facts.norm * np.sin(psi)
    height = barrier * scale
    rows = np.arange(value.size)
    for _ in range(steps):
        now, tall = here[rows], height[rows]
        trial = now + _step(gradient[rows], hessian[rows], damping[rows], now, tall)
        trial[:, ::2] = np.maximum(trial[:, ::2], 0.1 * now[:, ::2])
        found = expansion(rows_of(ratio, rows), escaping[rows], facts.take(rows), psi[rows], trial)
        gain = value[rows] - found[0] + tall * np.sum(np.log(trial[:, ::2] / now[:, ::2]), axis=1)
        better = gain > 0.0
        taken = rows[better]
        here[taken] = trial[better]
        for state, new in zip((value, gradient, hessian, slope), found[:4], strict=True):
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


class Expansion(NamedTuple):
    """The right side, approximately, near some multipliers and a psi or rho.

    Attributes:
        value: (rows,).
        gradient: (rows, 3) in (a, b, mu).
        hessian: (rows, 3, 3) likewise.
        slope: (rows,) the derivative in psi, or in rho.
        cross: (rows, 3) the gradient's derivative in psi, or in rho.
    """

    value: FloatArray
    gradient: FloatArray
    hessian: FloatArray
    slope: FloatArray
    cross: FloatArray


def expansion(
    ratio: LikelihoodRatio,
    escaping: FloatArray,
    facts: Facts,
    psi: FloatArray,
    multipliers: FloatArray,
    drift: FloatArray | None = None,
    steps: int = _SUMMIT_STEPS,
) -> Expansion:
    """The right side at the best nu, a and mu being positive: in psi, or with ``drift`` = dL/drho of the nodes in rho.

    At the best nu the escape takes exactly the mass ``rare`` where L is largest, and nu itself cancels.
    """
    a, b, mu = multipliers.T
    sine, cosine, norm = np.sin(psi), np.cos(psi), facts.norm
    beta = -norm * sine
    slope = ratio.nodes + b[:, None]
    turn = _turn(slope, a[:, None], 2.0 * mu[:, None], steps)
    x = 1.0 / np.sqrt(1.0 + turn * turn)
    y = turn * x
    inside = ratio.weights * (1.0 - escaping)
    along = inside * y
    mean_x, mean_y, mean_square = _sum(inside, x), along.sum(axis=1), _sum(along, y)
    value = a * mean_x + _sum(along, slope) - mu * mean_square
    bend = inside / (a[:, None] / (x * x * x) + 2.0 * mu[:, None])
    hessian, cross = _bending(bend, turn, -2.0 * y, drift)
    by_shift = np.zeros(norm.shape) if drift is None else _sum(along, drift)
    by_beta, mixed = 2.0 * mu * beta, np.stack([0.0 * beta, 0.0 * beta, 2.0 * beta], axis=1)
    gradient = np.stack([mean_x, mean_y, -mean_square], axis=1)
    if escaping.any():
        out = ratio.weights * escaping
        free = slope - (2.0 * mu * beta)[:, None]
        length = np.sqrt(free * free + (a * a)[:, None])
        along = out * free / length
        share, mean_y = out.sum(axis=1), along.sum(axis=1)
        value += _sum(out, length) + mu * beta**2 * share
        mean_x = a * _sum(out, 1.0 / length)
        gradient += np.stack([mean_x, mean_y, beta**2 * share - 2.0 * beta * mean_y], axis=1)
        bend = out * (a * a)[:, None] / (length * length * length)
        more = _bending(bend, free / a[:, None], (-2.0 * beta)[:, None], drift)
        hessian, cross = hessian + more[0], cross + more[1]
        by_shift = by_shift if drift is None else by_shift + _sum(along, drift)
        by_beta += 2.0 * mu * (beta * share - mean_y)
        mixed -= 2.0 * mu[:, None] * more[0][:, 1]
        mixed[:, 2] += 2.0 * (beta * share - mean_y)
    value += ratio.tail - norm * (a * cosine - b * sine) + mu * (facts.spread + beta**2)
    gradient += np.stack([-norm * cosine, norm * sine + ratio.tail, facts.spread + beta**2], axis=1)
    if drift is not None:
        return Expansion(value, gradient, hessian, by_shift, cross)
    cross = np.stack([norm * sine, norm * cosine, 0.0 * norm], axis=1) - (norm * cosine)[:, None] * mixed
    by_psi = norm * (a * sine + b * cosine) - norm * cosine * by_beta
    return Expansion(value, gradient, hessian, by_psi, cross)


def _turn(slope: FloatArray, across: FloatArray, twice: FloatArray, steps: int) -> FloatArray:
    """The tangent y / sqrt(1-y^2) of the place of the first maximum: ``parabola.summit`` for a, mu > 0."""
    size = np.abs(slope)
    turn = np.maximum(size / (across + twice), (size - twice) / across)
    for _ in range(steps):
        square = 1.0 / (1.0 + turn * turn)
        bend = twice * np.sqrt(square)
        turn += (size - turn * (across + bend)) / (across + bend * square)
        np.maximum(turn, 0.0, out=turn)
    return np.copysign(turn, slope)


def _bending(
    bend: FloatArray, turn: FloatArray, third: FloatArray, drift: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    """Sums of bend k k' (rows, 3, 3) and of bend drift k (rows, 3), for k = (-turn, 1, third) at each node."""
    turned, times = bend * turn, bend * third
    hessian = np.empty((len(bend), 3, 3))
    hessian[:, 0, 0], hessian[:, 1, 1], hessian[:, 2, 2] = (
        _sum(turned, turn),
        bend.sum(axis=1),
        _sum(times, np.broadcast_to(third, times.shape)),
    )
    hessian[:, 0, 1] = hessian[:, 1, 0] = -turned.sum(axis=1)
    hessian[:, 0, 2] = hessian[:, 2, 0] = -_sum(times, turn)
    hessian[:, 1, 2] = hessian[:, 2, 1] = times.sum(axis=1)
    if drift is None:
        return hessian, np.zeros((len(bend), 3))
    return hessian, np.stack([-_sum(turned, drift), _sum(bend, drift), _sum(times, drift)], axis=1)


def _sum(first: FloatArray, second: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("ij,ij->i", first, second))


def _expect(ratio: LikelihoodRatio, values: FloatArray) -> FloatArray:
    return _sum(values, ratio.weights)
