"""Bounds from the distribution of margins, at every radius of the job: one fixed scalar a radius (docs/theory.md T8).

Each radius has a scalar of its own, chosen on the pilot draws, and its mean one bound at the whole level. Nothing is
shared: a claim at one radius implies it at every smaller one, and a row never claims more at a larger radius than at a
smaller one. So if some radius is claimed falsely, then also the first radius of the grid at which the claim is false,
which is fixed beforehand, and so is the rival that overtakes there: one bound must have failed. For rank at most k
there are k such rivals, and each bound stands at alpha/k.

Radii beyond the first at which nothing is certified are left alone, which costs nothing but time: what is left out
could only have been claimed less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smoothcert.certificates import LAW, choose_law, normal_scalar
from smoothcert.job import CertifySection
from smoothcert.statistics import bets_for, lower_bound

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Draws:
    """Scores along some directions of some pairs, or along rivals: one row for each.

    Attributes:
        pilot: (rows, n0) of the pilot draws, in [0, 1].
        fresh: (rows, n) of the certify draws.
        counts: (rows,) how many of these count.
        rest: whether the last row is that of many rivals together: the smallest of their margins in each draw.
    """

    pilot: Array
    fresh: Array
    counts: NDArray[np.int64]
    rest: bool = False

    def take(self, rows: NDArray[np.intp]) -> Draws:
        """Some rows."""
        return Draws(self.pilot[rows], self.fresh[rows], self.counts[rows])


@dataclass(frozen=True, slots=True)
class ScalarBounds:
    """What the scalars of some pairs prove.

    Attributes:
        score: (P, R) lower bounds of the mean score of the (binding) scalar at each radius; NaN where none was asked.
        law: (P, R, LAW) the scalars.
        bound: (P, R) lower bounds of the margin under attack, never rising; NaN where none was asked, or of rivals not
            above 0.
    """

    score: Array
    law: Array
    bound: Array

    @classmethod
    def empty(cls, pairs: int, radii: int) -> ScalarBounds:
        """Nothing asked yet."""
        nothing = np.full((pairs, radii), np.nan)
        return cls(nothing, np.full((pairs, radii, LAW), np.nan), nothing.copy())


MOST_ALONE = 3
"""Rivals that have scalars of their own at most; all others share one."""
_HARDLY = 0.05
"""By so many standard deviations of the nearest rival's margin the shared mean may be lower than without sharing."""


def pool(draws: Draws, most: int = MOST_ALONE) -> Draws:
    """A row for each of the first rivals, and one for all others together: the smallest of their margins in each draw.

    A phi that never falls makes of the smallest margin no more than of each of them, so that the mean bounds the margin
    over every one of them by the same constant, at one bound for all. Only so many have a row of their own that
    sharing costs hardly anything in the pilot draws: every row takes time.

    Args:
        draws: a row for each rival, or the last for several.
        most: how many have a row of their own at most.
    """
    shared = np.minimum.accumulate(draws.pilot[::-1])[::-1].mean(axis=1)
    means = draws.pilot.mean(axis=1)
    nearest = int(np.argmin(means))
    enough = shared >= means[nearest] - _HARDLY * draws.pilot[nearest].std()
    own = min(int(np.argmax(enough)) if enough.any() else most, most)
    if len(draws.counts) <= own + 1:
        return draws

    def together(scores: Array) -> Array:
        return np.concatenate([scores[:own], scores[own:].min(axis=0, keepdims=True)])

    return Draws(together(draws.pilot), together(draws.fresh), draws.counts[: own + 1], rest=True)


class ScalarMeter:
    """Measures scalars at one level.

    Args:
        certify: radii, noise, method and targets.
        alpha: failure probability of each bound.
    """

    def __init__(self, certify: CertifySection, alpha: float) -> None:
        self._certify = certify
        self._alpha = alpha

    def measure(self, draws: Draws, radius: float) -> tuple[Array, Array, Array]:
        """(lower bounds of mean scores (rows,), scalars (rows, LAW), bounds of margins (rows,)) at a radius."""
        certify, alpha = self._certify, self._alpha
        before, after = 2.0 * draws.pilot - 1.0, 2.0 * draws.fresh - 1.0
        chosen, _ = choose_law(before, radius, certify.sigma, draws=certify.max_draws, alpha=alpha)
        scalar = normal_scalar(chosen)
        scores = scalar.scores(after)
        bets = None
        if certify.method == "betting":
            fixed = not certify.targets
            mean, deviation = scalar.moments(before)
            bets = bets_for(mean, deviation**2, before.shape[1], alpha, certify.max_draws, fixed=fixed)
        low = lower_bound(scores, alpha, certify.method, counts=draws.counts, bets=bets)
        inside = np.arange(scores.shape[1]) < draws.counts[:, None]
        mean = np.maximum(np.where(inside, scores, 0.0).sum(axis=1) / draws.counts, low)
        constant = scalar.constant(radius, certify.sigma)
        usable = np.isfinite(constant)
        bound = np.where(usable, scalar.bound(np.where(usable, constant, 0.0), low), np.nan)
        return low, np.concatenate([chosen, mean[:, None]], axis=1), bound

    def along(self, draws: Draws, least: float) -> ScalarBounds:
        """Bounds of projections on one fixed direction of each pair, up to the radius where they fall below ``least``.

        Args:
            draws: a row for each pair.
            least: smaller bounds say nothing.
        """
        found = ScalarBounds.empty(len(draws.counts), len(self._certify.radii))
        alive = np.arange(len(draws.counts))
        for i, radius in enumerate(self._certify.radii):
            if not alive.size:
                break
            score, law, bound = self.measure(draws.take(alive), radius)
            if i:
                bound = np.minimum(bound, found.bound[alive, i - 1])
            held = bound >= least
            alive = alive[held]
            found.score[alive, i], found.law[alive, i], found.bound[alive, i] = (
                score[held],
                law[held],
                bound[held],
            )
        return found

    def against(self, draws: Sequence[Draws | None], k: int) -> ScalarBounds:
        """Bounds of the k-th smallest margin over rivals, up to the radius at which they are not above 0.

        A rest counts as k rivals: if none of it overtakes, as its own bound says, then k others must.

        Args:
            draws: (P,) a row for each measured rival of each pair's text, the nearest first, perhaps one for the rest;
                None without rivals.
            k: rank that is certified.
        """
        found = ScalarBounds.empty(len(draws), len(self._certify.radii))
        # only the smallest margin may be that of several rivals at the price of one
        shown = {
            i: each if k > 1 else pool(each)
            for i, each in enumerate(draws)
            if each is not None and len(each.counts) >= k
        }
        alive = list(shown)
        previous = np.full(len(draws), np.inf)
        for position, radius in enumerate(self._certify.radii):
            if not alive:
                break
            rows = [shown[i] for i in alive]
            score, law, bound = self.measure(join_draws(rows), radius)
            ends = np.cumsum([len(each.counts) for each in rows])[:-1]
            starts = np.concatenate([[0], ends])
            going = []
            for i, start, mine in zip(alive, starts, np.split(bound, ends), strict=True):
                place = binding(mine, k, shown[i].rest)
                value = min(mine[place], previous[i])
                if value > 0.0:
                    found.score[i, position] = score[start + place]
                    found.law[i, position] = law[start + place]
                    found.bound[i, position] = previous[i] = value
                    going.append(i)
            alive = going
        return found


def binding(bounds: Array, k: int, rest: bool) -> int:
    """Which of the bounds (n,) is the k-th smallest; NaN is least, and the last counts k times if it is of a rest."""
    order = np.argsort(np.where(np.isnan(bounds), -2.0, bounds), kind="stable")
    last = len(bounds) - 1
    return last if rest and last in order[:k] else int(order[k - 1])


def join_draws(parts: Sequence[Draws]) -> Draws:
    """The rows of several one after the other; what is missing behind the draws that count is 0."""
    length = max(part.fresh.shape[1] for part in parts)
    counts = np.concatenate([part.counts for part in parts])
    fresh, start = np.zeros((len(counts), length)), 0
    for part in parts:
        stop = start + len(part.counts)
        fresh[start:stop, : part.fresh.shape[1]] = part.fresh
        start = stop
    return Draws(np.concatenate([part.pilot for part in parts]), fresh, counts)
