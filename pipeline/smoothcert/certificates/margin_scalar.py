"""Margins from their distribution: one bounded scalar of a draw, and what its mean proves (docs/theory.md T8).

For a fixed unit vector w the margin M = <u, -w> of every draw is measured, so more than its mean is known. Whatever
function h of the draw's feature is fixed beforehand (on pilot draws),

    <m(x+delta), -w> >= E h(u) - C,     C = E_z sup_u [ h(u) - L M ]

for every ||delta|| <= rho sigma, because the left side is E[L M] for the likelihood ratio L of the shifted noise. So
one number, the mean of h, is all that has to be bounded, at the whole failure probability: bad choices of h cost
draws, never soundness. Here

    h(u) = phi(M) + lv <u, v> - mu (M - a)^2 + sum_j nu_j 1(M >= c_j)

with phi concave and linear between the c_j, and v the pilot direction. T1 is phi(M) = l M; T4 is l M + lv <u, v>; T6 is
the indicators alone.

If the law of M is known, phi alone is enough: the worst encoder pairs the largest L with the smallest M, and the phi
whose slope at M is the L it is paired with proves exactly what that encoder leaves (the tests check both). A step can
always be replaced by the smallest concave function above it, which has the same C and a larger mean.

sup_u [h - L M] is a maximum of linear functions of L with slopes -M in [-1, 1]: convex in L, so that the grid of
``LikelihoodRatio`` bounds its expectation from above. With phi alone it is linear in L between the slopes of phi, and
its expectation is a closed form.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from smoothcert.certificates.domain import FloatArray, numbers, shift_in_noise_units
from smoothcert.certificates.frontier import LARGEST_SHIFT, SMALLEST_SHIFT
from smoothcert.certificates.likelihood import ABSOLUTE_SLACK, RELATIVE_SLACK, LikelihoodRatio
from smoothcert.certificates.parabola import summit

_CELLS, _REACH = 600, 8.5
_ROWS_AT_ONCE, _NUMBERS_AT_ONCE = 16, 8192
# Relative to the size of the scalar: errors of ndtr, of sums of some dozens of terms, and of h as it is measured.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class MarginScalar:
    """A fixed scalar h for every row.

    Attributes:
        alignment: (rows,) <v, w>, in [-1, 1].
        knots: (rows, K) c_1 <= ... <= c_K in [-1, 1]; K may be 0.
        slopes: (rows, K+1) slopes of phi below c_1, between the knots, and above c_K; falling; phi(0) is what the last
            piece, prolonged, has there: 0.
        pilot: (rows,) lv >= 0.
        curvature: (rows,) mu >= 0.
        center: (rows,) a in [-1, 1].
        steps: (rows, K) nu_j >= 0.
    """

    alignment: FloatArray
    knots: FloatArray
    slopes: FloatArray
    pilot: FloatArray
    curvature: FloatArray
    center: FloatArray
    steps: FloatArray

    def __post_init__(self) -> None:
        top = float(np.finfo(np.float64).max)
        numbers("alignment", self.alignment, -1.0, 1.0)
        numbers("knots", self.knots, -1.0, 1.0)
        numbers("center", self.center, -1.0, 1.0)
        numbers("slopes", self.slopes, -top, top)
        for name in ("pilot", "curvature", "steps"):
            numbers(name, getattr(self, name), 0.0, top)
        rows, k = self.knots.shape
        for name, shape in (("slopes", (rows, k + 1)), ("steps", (rows, k)), ("alignment", (rows,))):
            if getattr(self, name).shape != shape:
                raise ValueError(
                    f"{name} has shape {getattr(self, name).shape}; knots {self.knots.shape} need {shape}"
                )
        if np.any(np.diff(self.knots, axis=-1) < 0.0) or np.any(np.diff(self.slopes, axis=-1) > 0.0):
            raise ValueError("knots must not fall and slopes must not rise: phi is concave")

    def take(self, rows: NDArray[np.intp] | slice) -> MarginScalar:
        """Some rows of it."""
        return MarginScalar(*(getattr(self, field.name)[rows] for field in fields(self)))

    def values(self, margins: FloatArray, along: FloatArray) -> FloatArray:
        """The scalar of draws: (rows, n) from margins M (rows, n) in [-1, 1] and <u, v> (rows, n)."""
        h = self.slopes[:, -1:] * margins
        kinks = self.slopes[:, :-1] - self.slopes[:, 1:]
        # some rows at a time, so that what each knot adds stays in the cache
        some = max(1, _NUMBERS_AT_ONCE // max(1, margins.shape[-1]))
        for start in range(0, len(h), some):
            part = slice(start, start + some)
            below = np.empty_like(h[part])
            for knot, kink in zip(self.knots[part].T, kinks[part].T, strict=True):
                np.subtract(knot[:, None], margins[part], out=below)
                np.maximum(below, 0.0, out=below)
                below *= kink[:, None]
                h[part] -= below
        if self._phi_alone():
            return np.asarray(h)
        h += self.pilot[:, None] * along
        h -= self.curvature[:, None] * (margins - self.center[:, None]) ** 2
        for j in range(self.knots.shape[-1]):
            h += self.steps[:, j : j + 1] * (margins >= self.knots[:, j : j + 1])
        return np.asarray(h)

    def limits(self) -> tuple[FloatArray, FloatArray]:
        """Two numbers per row, (rows,) each, between which h lies for every unit feature."""
        return self._limits

    @cached_property
    def _limits(self) -> tuple[FloatArray, FloatArray]:
        if self._phi_alone():
            _, phi = self.corners
            least, most = np.minimum(phi[:, 0], phi[:, -1]), phi.max(axis=-1)
            slack = _ROUNDING * (1.0 + np.abs(least) + np.abs(most))
            return least - slack, most + slack
        # Above its chord lies what is concave, and steps only add.
        ends = np.broadcast_to([-1.0, 1.0], (len(self.alignment), 2))
        smooth = self.values(ends, 0.0 * ends) - np.sum(
            self.steps[:, None, :] * (ends[:, :, None] >= self.knots[:, None, :]), axis=-1
        )
        middle, chord = smooth.mean(axis=-1), (smooth[:, 1] - smooth[:, 0]) / 2.0
        square = chord**2 + self.pilot**2 - 2.0 * chord * self.pilot * self.alignment
        least = middle - np.sqrt(np.maximum(square, 0.0))
        most = self._supremum(np.zeros(1))[:, 0]
        slack = _ROUNDING * (1.0 + np.abs(least) + np.abs(most))
        return least - slack, most + slack

    def constant(self, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
        """C, rounded up: <m(x+delta), -w> >= E h - C for every ||delta||_2 <= radius.

        Args:
            radius: l2 radius, >= 0, () or (rows,).
            sigma: noise standard deviation, > 0.

        Returns:
            (rows,); infinite beyond LARGEST_SHIFT sigma, where nothing is certified.

        Raises:
            ValueError: NaN or out of range.
        """
        rho = np.broadcast_to(shift_in_noise_units(radius, sigma)[0], self.alignment.shape)
        near = np.clip(rho, SMALLEST_SHIFT, LARGEST_SHIFT)
        found = self._by_knots(near) if self._phi_alone() else self._by_quadrature(near)
        low, high = self.limits()
        found += _ROUNDING * (1.0 + np.maximum(np.abs(low), np.abs(high)))
        return np.where(rho <= LARGEST_SHIFT, found, np.inf)

    def scores(self, margins: FloatArray, along: FloatArray | None = None) -> FloatArray:
        """The scalar of draws, mapped to [0, 1] by its limits: (rows, n), for a test or a bound of its mean.

        Of a scalar of the margin alone ``along`` is not needed.
        """
        low, high = self.limits()
        values = self._interpolated(margins) if along is None else self.values(margins, along)
        return np.clip((values - low[:, None]) / (high - low)[:, None], 0.0, 1.0)

    def moments(self, margins: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of ``scores`` over draws (rows, n), (rows,) each; of the margin alone."""
        low, high = self.limits()
        mean, deviation = self.phi_moments(margins)
        return np.clip((mean - low) / (high - low), 0.0, 1.0), deviation / (high - low)

    def phi_moments(self, margins: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of phi over draws, (rows,) each.

        phi is linear between its knots: it is enough to know how many draws lie there, their sum, and that of their
        squares.

        Args:
            margins: (sets, n); each serves as many neighbouring rows as there are for a set.
        """
        assert self._phi_alone(), "a scalar that looks at <u, v> has other moments"
        sets, n = margins.shape
        ordered = np.sort(margins, axis=1)
        sums = np.zeros((3, sets, n + 1))
        sums[0, :, 1:] = np.arange(1.0, n + 1.0)
        np.cumsum(ordered, axis=1, out=sums[1, :, 1:])
        np.cumsum(ordered**2, axis=1, out=sums[2, :, 1:])
        # margins of one set and the next are more than their range apart, so that one search serves all
        mine = np.repeat(np.arange(sets), len(self.knots) // max(sets, 1))[:, None]
        lifted = (ordered + 4.0 * np.arange(sets)[:, None]).ravel()
        below = np.searchsorted(lifted, self.knots + 4.0 * mine) - n * mine
        ends = np.concatenate([0 * mine, below, n + 0 * mine], axis=1)
        count, total, squares = np.diff(sums[:, mine, ends], axis=-1)
        places, phi = self.corners
        fixed = phi[:, :-1] - self.slopes * places[:, :-1]
        mean = np.sum(fixed * count + self.slopes * total, axis=1) / n
        bent = fixed**2 * count + 2.0 * fixed * self.slopes * total + self.slopes**2 * squares
        return mean, np.sqrt(np.maximum(np.sum(bent, axis=1) / n - mean**2, 0.0))

    def pieces(self) -> FloatArray:
        """How to compute ``scores`` elsewhere: (rows, 2 + 2K) numbers offset, slope, knots, kinks.

        The score is offset + slope M - sum_j kinks_j max(knots_j - M, 0), cut to [0, 1].
        """
        assert self._phi_alone(), "a scalar that looks at <u, v> has more pieces"
        low, high = self.limits()
        size = (high - low)[:, None]
        kinks = self.slopes[:, :-1] - self.slopes[:, 1:]
        return np.concatenate([-low[:, None] / size, self.slopes[:, -1:] / size, self.knots, kinks / size], 1)

    def threshold(self, constant: FloatArray, level: ArrayLike = 0.0) -> FloatArray:
        """Mean score that proves <m(x+delta), -w> >= level, rounded up: (rows,); above 1 it cannot be proved."""
        low, high = self.limits()
        needed = (np.asarray(level) + constant - low) / (high - low)
        return np.asarray(needed + _ROUNDING * (1.0 + np.abs(needed)))

    def bound(self, constant: FloatArray, score_lcb: ArrayLike) -> FloatArray:
        """Lower bound of <m(x+delta), -w> from one of the mean score, rounded down: (rows,) in [-1, 1].

        It fails with the failure probability of ``score_lcb``, and may be negative: it bounds a projection.
        """
        low, high = self.limits()
        share = numbers("score_lcb", score_lcb, 0.0, 1.0)
        proved = low + share * (high - low) - constant
        return np.clip(proved - _ROUNDING * (1.0 + np.abs(low) + np.abs(high)), -1.0, 1.0)

    def _interpolated(self, margins: FloatArray) -> FloatArray:
        """Values at draws: on hundreds of them faster than piece by piece, and the same up to ``_ROUNDING``."""
        assert self._phi_alone(), "a scalar that looks at <u, v> needs it"
        places, phi = self.corners
        fixed = phi[:, :-1] - self.slopes * places[:, :-1]
        result = np.empty(margins.shape)
        for start in range(0, len(margins), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            here = margins[part]
            piece, reached = np.zeros(here.shape, dtype=np.uint8), np.empty(here.shape, dtype=np.bool_)
            for knot in self.knots[part].T:
                np.greater_equal(here, knot[:, None], out=reached)
                piece += reached
            index = piece + np.arange(len(here))[:, None] * self.slopes.shape[1]
            np.multiply(self.slopes[part].ravel().take(index), here, out=result[part])
            result[part] += fixed[part].ravel().take(index)
        return result

    @cached_property
    def corners(self) -> tuple[FloatArray, FloatArray]:
        """Where phi bends, and -1 and 1, and what it is there: (rows, K+2) each."""
        ones = np.ones((len(self.knots), 1))
        places = np.concatenate([-ones, self.knots, ones], axis=-1)
        falls = self.slopes * np.diff(places, axis=-1)
        below = np.cumsum(falls[:, ::-1], axis=-1)[:, ::-1]
        return places, self.slopes[:, -1:] - np.concatenate([below, 0.0 * ones], axis=-1)

    def _phi_alone(self) -> bool:
        return not (self.pilot.any() or self.curvature.any() or self.steps.any())

    def _by_knots(self, rho: FloatArray) -> FloatArray:
        """With phi alone, M is a knot or an end for almost every L: a closed form."""
        places, phi = self.corners
        ones = np.ones((len(rho), 1))
        with np.errstate(divide="ignore"):
            turn = (np.log(np.maximum(self.slopes, 0.0)) + rho[:, None] ** 2 / 2.0) / rho[:, None]
        turn = np.concatenate([np.inf * ones, turn, -np.inf * ones], axis=-1)
        shifted = turn - rho[:, None]
        mass, moved = -np.diff(ndtr(turn), axis=-1), -np.diff(ndtr(shifted), axis=-1)
        return np.asarray(np.sum(phi * mass - places * moved, axis=-1))

    def _by_quadrature(self, rho: FloatArray) -> FloatArray:
        result = np.empty(rho.size)
        for shift in np.unique(rho):
            ratio = LikelihoodRatio(float(shift), cells=_CELLS, reach=_REACH)
            same = np.flatnonzero(rho == shift)
            for start in range(0, same.size, _ROWS_AT_ONCE):
                rows = same[start : start + _ROWS_AT_ONCE]
                most = self.take(rows)._supremum(ratio.nodes)
                slack = RELATIVE_SLACK * (np.abs(most) @ ratio.weights + ratio.tail) + ABSOLUTE_SLACK
                result[rows] = most @ ratio.weights + ratio.tail + slack
        return result

    def _supremum(self, ratio: FloatArray) -> FloatArray:
        """Upper bound of sup_u [h(u) - L M] at L = ratio (J,): (rows, J).

        On each piece between knots a tangent of -mu (M-a)^2, wherever it touches, lies above it, and leaves a maximum
        of p M + q sqrt(1-M^2) over an interval.
        """
        ones = np.ones((len(self.knots), 1))
        ends = np.concatenate([-ones, self.knots, ones], axis=-1)
        mu, a = self.curvature[:, None], self.center[:, None]
        g = self.alignment
        across = (self.pilot * np.sqrt((1.0 - g) * (1.0 + g)))[:, None]
        best = np.full((len(ends), ratio.size), -np.inf)
        for k in range(self.slopes.shape[-1]):
            low, high = ends[:, k : k + 1], ends[:, k + 1 : k + 2]
            kinks = self.slopes[:, k:-1] - self.slopes[:, k + 1 :]
            fixed = np.sum(self.steps[:, :k], axis=-1) - np.sum(kinks * self.knots[:, k:], axis=-1)
            slope = self.slopes[:, k : k + 1] - ratio - (self.pilot * g)[:, None]
            place = np.clip(summit(slope + 2.0 * mu * a, across, mu), low, high)
            bend = 2.0 * mu * (place - a)
            tilted = slope - bend
            length = np.hypot(tilted, across)
            top = np.divide(tilted, length, out=np.zeros_like(length), where=length > 0.0)
            place = np.clip(top, low, high)
            clipped = tilted * place + across * np.sqrt((1.0 - place) * (1.0 + place))
            value = np.where(place == top, length, clipped) + fixed[:, None] + bend * a
            value += np.divide(bend**2, 4.0 * mu, out=np.zeros_like(bend), where=mu > 0.0)
            np.maximum(best, value, out=best)
        return best
