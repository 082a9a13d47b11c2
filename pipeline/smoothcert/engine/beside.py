"""T4 beside T8: its two means have a part of alpha in every certificate by the distribution (docs/theory.md T8).

T8 stands at all of alpha but ``BESIDE`` of it, T4 at ``BESIDE``, and a row has the better of the two. Both are sound at
their parts, so that the better one is at alpha; and it is never below T4 at that part. Where T4 at alpha, which the row
has anyway, does not claim more, it does not at a part either, and nothing is computed: so nearly always.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smoothcert.certificates import straight_bound, straight_law, straight_score
from smoothcert.engine.distribution import ScalarBounds, binding
from smoothcert.engine.rivals import Rivals

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Means:
    """Of <u, -w> and <u, v> for a direction w and the pilot direction v, one row for each w.

    Attributes:
        margin: lower bounds of the first mean; NaN where it was not measured.
        norm: lower bounds of the second.
        sampled: (rows, 2) sample values of both.
        alignment: <v, w>.
    """

    margin: Array
    norm: Array
    sampled: Array
    alignment: Array

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Means:
        """Some rows."""
        return Means(self.margin[rows], self.norm[rows], self.sampled[rows], self.alignment[rows])


def rival_means(rivals: Rivals, bounds: Array, sampled: Array) -> Means:
    """Of each measured rival of one text, then of the worst of the others where there are any.

    Args:
        rivals: the competitors.
        bounds: (1 + places,) lower bounds of <m(x), v> and of the margins over measured rivals; more are not read.
        sampled: the same of the draws.
    """
    size = len(rivals.measured)
    margin, seen, alignment = bounds[1 : size + 1], sampled[1 : size + 1], rivals.alignment
    if rivals.others_alignment is not None:
        margin, seen = np.append(margin, np.nan), np.append(seen, -1.0)
        alignment = np.append(alignment, rivals.others_alignment)
    norms = np.full(len(margin), sampled[0])
    return Means(margin, np.full(len(margin), bounds[0]), np.stack([seen, norms], axis=1), alignment)


def prove(means: Means, radius: float, sigma: float) -> tuple[Array, Array, Array]:
    """(lower bounds of mean scores (rows,), scalars (rows, LAW), bounds of margins (rows,)) by T4 at a radius."""
    laws, hidden = np.empty((len(means.norm), 4)), np.isnan(means.margin)
    if hidden.any():
        laws[hidden] = straight_law(None, means.norm[hidden], means.alignment[hidden], radius, sigma)
    if not hidden.all():
        seen = means.take(~hidden)
        laws[~hidden] = straight_law(seen.margin, seen.norm, seen.alignment, radius, sigma)
    # the margin that was not measured has no part in its scalar
    low = straight_score(laws, np.where(hidden, -1.0, means.margin), means.norm)
    mean = np.maximum(straight_score(laws, *means.sampled.T), low)
    return low, np.concatenate([laws, mean[:, None]], axis=1), straight_bound(low, laws, radius, sigma)


def along_beside(
    found: ScalarBounds,
    claimed: Array,
    means_of: Callable[[NDArray[np.intp]], Means],
    radii: Sequence[float],
    sigma: float,
    least: float,
) -> None:
    """Put T4's bounds where they are larger than those found along one direction of each pair.

    Args:
        found: of P pairs at R radii, NaN where none is at least ``least``; changed in place.
        claimed: (P, R) T4's bounds at the whole alpha; NaN for none.
        means_of: what T4 rests on at its part of alpha, by the positions of pairs.
        radii: of the job.
        sigma: noise standard deviation.
        least: smaller bounds say nothing.
    """
    wanted = np.nan_to_num(claimed, nan=-2.0) > np.nan_to_num(found.bound, nan=-2.0)
    pairs = np.flatnonzero(wanted.any(axis=1))
    if not pairs.size:
        return
    means = means_of(pairs)
    for i, radius in enumerate(radii):
        rows = np.flatnonzero(wanted[pairs, i])
        before = found.bound[pairs[rows], i - 1] if i else np.ones(len(rows))
        rows, before = rows[~np.isnan(before)], before[~np.isnan(before)]
        if not rows.size:
            continue
        score, law, bound = prove(means.take(rows), radius, sigma)
        bound = np.minimum(bound, before)
        here = pairs[rows]
        better = (bound >= least) & (bound > np.nan_to_num(found.bound[here, i], nan=-2.0))
        here = here[better]
        found.score[here, i], found.law[here, i], found.bound[here, i] = (
            score[better],
            law[better],
            bound[better],
        )


def against_beside(
    found: ScalarBounds,
    certified: Array,
    rivals: Sequence[Rivals | None],
    means_of: Callable[[NDArray[np.intp]], Sequence[Means]],
    radii: Sequence[float],
    sigma: float,
    k: int,
) -> None:
    """Put T4's bounds of the k-th smallest margin over rivals where T4 certifies a radius and T8 does not.

    Args:
        found: of P pairs at R radii, NaN where none is above 0; changed in place.
        certified: (P,) radii by T4 at the whole alpha; NaN for none, infinite without enough rivals.
        rivals: (P,) competitors of each pair's text.
        means_of: what T4 rests on at its part of alpha, by the positions of pairs: of each measured rival, then of the
            worst of the others where there are any.
        radii: of the job.
        sigma: noise standard deviation.
        k: rank that is certified.
    """
    reached = np.isfinite(certified)[:, None] & (np.asarray(radii) <= certified[:, None])
    wanted = reached & np.isnan(found.bound)
    pairs = np.flatnonzero(wanted.any(axis=1))
    if not pairs.size:
        return
    means = dict(zip(pairs.tolist(), means_of(pairs), strict=True))
    for i, radius in enumerate(radii):
        for pair in np.flatnonzero(wanted[:, i]).tolist():
            group = rivals[pair]
            before = found.bound[pair, i - 1] if i else np.inf
            if group is None or np.isnan(before):
                continue
            score, law, bound = prove(means[pair], radius, sigma)
            place = binding(bound, k, group.others_alignment is not None)
            if bound[place] > 0.0:
                found.score[pair, i], found.law[pair, i] = score[place], law[place]
                found.bound[pair, i] = min(bound[place], before)
