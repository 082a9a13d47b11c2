"""Where the dual of docs/theory.md T7 changes sign: its best multipliers and the angle, or the shift, in one search.

At the best multipliers the right side F falls with psi and rises with rho, so that the smallest excluded angle and the
largest shift solve F = 0 and dF/d(a, b, mu) = 0 together: one damped Newton iteration for four unknowns, on a grid just
good enough to steer by. Nothing here is proved or needs to be: any multipliers make a bound, and ``second_moment``
evaluates it. What does not settle in a few steps is left to the search there, which is slower and gives up less often.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smoothcert.certificates.domain import FloatArray
from smoothcert.certificates.likelihood import LikelihoodRatio
from smoothcert.certificates.second_moment_dual import Expansion, Facts, escaping_share, expansion, rows_of

Rows = NDArray[np.intp]
Expand = Callable[[Rows, FloatArray, FloatArray], Expansion]
Scale = Callable[[Rows, FloatArray], FloatArray]

_NODES, _REACH, _SUMMIT_STEPS = 56, 4.5, 5
_STEPS = 24
_FIRST_BARRIER, _LAST_BARRIER, _RECEDE = 1e-2, 2e-5, 0.05
"""Of a logarithmic barrier that keeps a and mu positive, in parts of <m, -w>."""
_DAMPING, _MOST_DAMPING = 1e-4, 1e6
_ENOUGH = 2e-4
"""A step that changes less, in parts of <m, -w> or of the unknown, is the last."""
_TO_THE_BORDER = 0.9
_SHRINK, _GROW = 0.6, 1.5


@dataclass(frozen=True, slots=True)
class Crossing:
    """Nearly where the right side vanishes, a row each.

    Attributes:
        place: the angle, or the shift.
        multipliers: (rows, 3).
        slope: derivative of the right side in the unknown.
        settled: whether the search ended there.
        vacuous: whether it ended at 90 degrees with a right side that stays positive.
    """

    place: FloatArray
    multipliers: FloatArray
    slope: FloatArray
    settled: NDArray[np.bool_]
    vacuous: NDArray[np.bool_]


def smallest_angle(facts: Facts, rho: FloatArray, psi: FloatArray, multipliers: FloatArray) -> Crossing:
    """The angle at fixed shifts, from a first guess."""
    grid, _ = _steering_grid(rho)
    escaping = escaping_share(grid, facts.rare)

    def look(rows: Rows, place: FloatArray, here: FloatArray) -> Expansion:
        return expansion(
            rows_of(grid, rows), escaping[rows], facts.take(rows), place, here, None, _SUMMIT_STEPS
        )

    def scale(rows: Rows, place: FloatArray) -> FloatArray:
        return np.asarray(facts.norm[rows] * np.sin(place))

    return _Search(look, scale, (psi, multipliers), np.pi / 2, -1.0).run()


def largest_shift(
    facts: Facts, psi: FloatArray, rho: FloatArray, multipliers: FloatArray, limit: float
) -> Crossing:
    """The shift, at most a limit, at fixed angles, from a first guess."""
    size = facts.norm * np.sin(psi)

    def look(rows: Rows, place: FloatArray, here: FloatArray) -> Expansion:
        grid, drift = _steering_grid(place)
        some = facts.take(rows)
        return expansion(grid, escaping_share(grid, some.rare), some, psi[rows], here, drift, _SUMMIT_STEPS)

    def scale(rows: Rows, place: FloatArray) -> FloatArray:
        return np.asarray(size[rows])

    return _Search(look, scale, (rho, multipliers), limit, 1.0).run()


def _steering_grid(rho: FloatArray) -> tuple[LikelihoodRatio, FloatArray]:
    """Even nodes of the noise, by the trapezoidal rule, and how L at each moves with rho: no bound of anything."""
    z = -_REACH + (rho[:, None] + 2.0 * _REACH) * np.linspace(0.0, 1.0, _NODES)
    weights = np.exp(-(z**2) / 2.0)
    grid = object.__new__(LikelihoodRatio)
    grid.nodes = np.exp(rho[:, None] * (z - rho[:, None] / 2.0))
    grid.weights = weights / weights.sum(axis=1, keepdims=True)
    grid.tail = np.zeros(rho.size)
    return grid, grid.nodes * (z - rho[:, None])


class _Search:
    """Rows on their way: the best point of each with its expansion, and the trial that is looked at next."""

    def __init__(
        self, look: Expand, scale: Scale, start: tuple[FloatArray, FloatArray], most: float, sign: float
    ) -> None:
        """``sign`` is that of the derivative in the unknown, whose largest value is ``most``."""
        self._look, self._scale, self._most, self._sign = look, scale, most, sign
        self._trial, self._trial_multipliers = start[0].copy(), start[1].copy()
        self._place, self._multipliers = start[0].copy(), start[1].copy()
        rows = start[0].size
        self._at = Expansion(
            np.full(rows, np.inf),
            np.zeros((rows, 3)),
            np.zeros((rows, 3, 3)),
            np.zeros(rows),
            np.zeros((rows, 3)),
        )
        self._barrier, self._damping, self._part = (
            np.full(rows, _FIRST_BARRIER),
            np.full(rows, _DAMPING),
            np.ones(rows),
        )

    def run(self) -> Crossing:
        """Until every row settles, is vacuous or gives up."""
        rows = np.arange(self._place.size)
        settled, vacuous = np.zeros(rows.size, dtype=bool), np.zeros(rows.size, dtype=bool)
        for step in range(_STEPS):
            taken = self._take(rows, step == 0)
            ended, empty = self._advance(rows)
            settled[rows[ended & taken]] = True
            vacuous[rows[empty & taken]] = True
            rows = rows[~((ended | empty) & taken) & (self._damping[rows] < _MOST_DAMPING)]
            if not rows.size:
                break
        return Crossing(self._trial, self._trial_multipliers, self._at.slope, settled, vacuous)

    def _take(self, rows: Rows, first: bool) -> NDArray[np.bool_]:
        """Look at the trials; those that keep what the last expansion promised become the best points."""
        place, here = self._trial[rows], self._trial_multipliers[rows]
        found = self._look(rows, place, here)
        if first:
            taken = np.ones(rows.size, dtype=bool)
        else:
            scale = self._scale(rows, place)
            value = self._at.value[rows]
            gain = value + self._at.slope[rows] * (place - self._place[rows]) - found.value
            gain += (
                self._barrier[rows]
                * scale
                * np.log(here[:, ::2] / self._multipliers[rows][:, ::2]).sum(axis=1)
            )
            right = (self._sign * found.slope > 0.0) | (place >= self._most)
            taken = (gain > -_ENOUGH / 2.0 * scale - 0.1 * np.abs(value)) & right
        some = rows[taken]
        self._place[some], self._multipliers[some] = place[taken], here[taken]
        for state, new in zip(self._at, found, strict=True):
            state[some] = new[taken]
        if not first:
            self._barrier[some] = np.maximum(_RECEDE * self._barrier[some], _LAST_BARRIER)
            self._damping[rows] *= np.where(taken, 0.1, 10.0)
            self._part[rows] = np.where(
                taken, np.minimum(2.0 * self._part[rows], 1.0), 0.5 * self._part[rows]
            )
        return taken

    def _advance(self, rows: Rows) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Set the next trials from the best points; whether each is the last, and whether there is no crossing."""
        place, here = self._place[rows], self._multipliers[rows]
        at = Expansion(*(state[rows] for state in self._at))
        scale = self._scale(rows, place)
        height = self._barrier[rows] * scale
        inverse = np.zeros(here.shape)
        inverse[:, ::2] = 1.0 / here[:, ::2]
        diagonal = np.einsum("nii->ni", at.hessian)
        diagonal += height[:, None] * inverse**2
        diagonal *= 1.0 + 1e-10 + self._damping[rows][:, None]
        diagonal += 1e-14 * diagonal.max(axis=1, keepdims=True) + 1e-300
        sides = np.stack([at.gradient - height[:, None] * inverse, at.cross], axis=2)
        towards, along = np.moveaxis(np.linalg.solve(at.hessian, -sides), 2, 0)
        decrement = np.maximum(-np.sum(at.gradient * towards, axis=1), 0.0)
        least = at.value - decrement / 2.0
        steep = at.slope + np.sum(at.gradient * along, axis=1)
        steep = np.where(self._sign * steep > 0.0, steep, at.slope)
        right = self._sign * steep > 0.0
        move = np.where(right, -least / np.where(right, steep, 1.0), 0.0) * self._part[rows]
        move = np.clip(place + move, _SHRINK * place, np.minimum(_GROW * place, self._most)) - place
        step = towards + along * move[:, None]
        falling = np.minimum(step[:, ::2], -1e-300)
        share = np.minimum(np.min(-_TO_THE_BORDER * here[:, ::2] / falling, axis=1), 1.0)
        self._trial[rows], self._trial_multipliers[rows] = place + share * move, here + share[:, None] * step
        last = self._barrier[rows] <= 1.01 * _LAST_BARRIER
        small = (decrement < _ENOUGH * scale) & (np.abs(move) < _ENOUGH * place) & (share == 1.0)
        nothing = (place >= self._most) & (least > 0.0) & (decrement < 0.2 * least) & (height < 0.05 * least)
        empty = nothing if self._sign < 0.0 else np.zeros(rows.size, dtype=bool)
        return last & small & right & ~empty, empty
