"""Confidence bounds of a batch of measurements, at every level that a certificate of the catalogue rests on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from smoothcert.catalogue.certificate import Certificate
from smoothcert.catalogue.certificates import CATALOGUE, evidence
from smoothcert.catalogue.evidence import BESIDE, CAPTION_ALIGNMENT, EIGENVALUE, ESCAPE, Evidence, part_of
from smoothcert.catalogue.functions import projection_of_score
from smoothcert.certificates import PERCENTILE_SHIFTS
from smoothcert.engine.beside import Means, along_beside
from smoothcert.engine.distribution import Draws, ScalarBounds, ScalarMeter, join_draws
from smoothcert.engine.layout import PILOT, Layout
from smoothcert.engine.question import Question
from smoothcert.engine.records import Measurement
from smoothcert.engine.rivals import Rivals
from smoothcert.job import CertifySection
from smoothcert.statistics import (
    Bets,
    Method,
    choose_bets,
    eigenvalue_upper_bound,
    lower_bound,
    percentile_bound,
)

Array = NDArray[np.float64]

_KNOWN: Mapping[str, Callable[[Question], float | None]] = {
    CAPTION_ALIGNMENT.column: lambda question: question.caption_alignment
}
"""Numbers that no draw is needed for, by their column."""
_ALIGNMENT: Mapping[str, Callable[[Question], float | None]] = {
    "clean": lambda question: question.clean_alignment,
    "caption": lambda question: question.caption_alignment,
}
"""Inner products of the pilot direction with others, by their names."""


class BatchEvidence:
    """Evidence about some pairs.

    Args:
        batch: their measurements, at least one.
        certify: alpha and method.
        layout: positions of the directions.
        ranks: k of a retrieval section: its rivals are bounded at 1/k of their share too.
    """

    def __init__(
        self, batch: Sequence[Measurement], certify: CertifySection, layout: Layout, ranks: int
    ) -> None:
        self._batch = batch
        self._certify = certify
        self._layout = layout
        self._anytime = bool(layout.targets)
        self._counts = np.array([m.draws for m in batch])
        self._scores = np.zeros((len(batch), layout.kept, int(self._counts.max())))
        for i, m in enumerate(batch):
            self._scores[i, :, : m.draws] = m.scores
        self._scalars: dict[str, ScalarBounds] = {}
        self._found: dict[tuple[str, Fraction], Array] = {}
        self._means: Array = self._scores.sum(axis=2) / self._counts[:, None]
        self._lower = self._lower_bounds(ranks if layout.pool_rivals else 1)

    def measured(self) -> list[Evidence]:
        """The catalogue's evidence that these draws give for every pair, whatever the binding rival."""
        return [each for each in evidence() if self._has(each)]

    def supports(self, basis: Sequence[Evidence]) -> bool:
        """Whether a certificate can be computed from ``at`` alone."""
        return all(self._has(each) for each in basis)

    def estimates(self, wanted: Evidence) -> Array:
        """(P,) sample values of what a bound that has an estimate is about."""
        if wanted == EIGENVALUE:
            return np.array([np.nan if m.spread is None else m.spread.eigenvalue for m in self._batch])
        scores = self._means[:, self._layout.position(wanted.direction)]
        return 2.0 * scores - 1.0 if wanted.projection else scores

    def at(self, wanted: Evidence, share: Fraction) -> Array:
        """(P,) or (P, size) bounds, each at that share of alpha; what is known exactly, at any.

        What there is for each radius of the job has an axis (P, R, ...) more; NaN where it was not asked.
        """
        key = wanted.column, share
        if key not in self._found:
            self._found[key] = self._bounds(wanted, share)
        return self._found[key]

    def draws(self, i: int, first: int, places: int) -> Draws:
        """What pilot and certify draws of one pair showed along the directions from ``first`` on."""
        m, rows = self._batch[i], slice(first, first + places)
        return Draws(m.question.pilot[rows], m.scores[rows], np.full(places, m.draws, dtype=np.int64))

    def rival_draws(self, i: int, rivals: Rivals, first: int, rest: str) -> Draws:
        """The same for each rival of one pair whose directions stand from ``first`` on, the rest of them last."""
        m, places = self._batch[i], len(rivals.measured)
        measured = self.draws(i, first, places)
        if rivals.rest_pilot is None:
            return measured
        fresh = m.scores[self._layout.position(rest)]
        return Draws(
            np.concatenate([measured.pilot, rivals.rest_pilot[None]]),
            np.concatenate([measured.fresh, fresh[None]]),
            np.full(places + 1, m.draws, dtype=np.int64),
            rest=True,
        )

    def beside(
        self, pairs: NDArray[np.intp], positions: Sequence[int], ranks: int = 1
    ) -> tuple[Array, Array]:
        """Projections that T4 rests on where it has a part of alpha (engine/beside.py), of some pairs.

        Args:
            pairs: positions in the batch.
            positions: of the directions.
            ranks: k of a rank, over which alpha is split.

        Returns:
            (lower bounds, sample values), (pairs, positions) each; T4 needs two of the bounds.
        """
        alpha = part_of(self._certify.alpha, BESIDE / 2 / ranks)
        counts = np.repeat(self._counts[pairs, None], len(positions), axis=1)
        chosen = np.ix_(pairs, np.array(positions))
        pilot = np.concatenate([self._batch[i].question.pilot[list(positions)] for i in pairs])
        bounds = lower_bound(
            self._scores[chosen],
            alpha,
            self._certify.method,
            counts=counts,
            bets=self._bets(pilot, alpha),
        )
        # a bound at a part counts for no more than that of T4 itself
        bounds = np.minimum(bounds, self._lower[Fraction(1, 2) / ranks][chosen])
        return projection_of_score(bounds), 2.0 * self._means[chosen] - 1.0

    def put_beside(self, certificate: Certificate, claimed: Array) -> None:
        """Let T4 have its part in bounds from scalars along a fixed direction.

        Args:
            certificate: that rests on such scalars.
            claimed: (P, R) bounds of the certificate beside it, at its whole alpha.
        """
        scalar = certificate.basis[0]
        found = self._scalar(scalar, certificate.share_of_alpha)

        def means_of(pairs: NDArray[np.intp]) -> Means:
            low, sampled = self.beside(pairs, (self._layout.position(scalar.direction), PILOT))
            questions = [self._batch[i].question for i in pairs]
            alignment = [_ALIGNMENT[scalar.direction](question) for question in questions]
            return Means(
                low[:, 0], low[:, 1], sampled, -np.clip(np.array(alignment, dtype=np.float64), -1.0, 1.0)
            )

        along_beside(found, claimed, means_of, self._certify.radii, self._certify.sigma, _least(scalar))

    def means(self, first: int, places: int) -> Array:
        """(P, places) sample means of scores along the directions from ``first`` on."""
        return self._means[:, first : first + places]

    def projections(self, share: Fraction, first: int, places: int) -> Array:
        """(P, places) lower bounds of projections along these directions at a share that rivals are bounded at."""
        return projection_of_score(self._lower[share][:, first : first + places])

    def _has(self, wanted: Evidence) -> bool:
        if wanted.kind == "rival" or (wanted.kind in ("scalar", "law") and not wanted.direction):
            return False
        if wanted.kind == "upper":
            return self._batch[0].spread is not None
        if wanted.kind == "known":
            return wanted.column in _KNOWN and self._layout.caption
        if wanted.kind == "quantiles" and self._certify.percentile is None:
            return False
        return self._layout.has(wanted.direction)

    def _bounds(self, wanted: Evidence, share: Fraction) -> Array:
        match wanted.kind:
            case "known":
                values = [_KNOWN[wanted.column](m.question) for m in self._batch]
                return np.array(values, dtype=np.float64)
            case "mean":
                bounds = self._share(wanted, share) if wanted.votes else self._mean(wanted, share)
                return projection_of_score(bounds) if wanted.projection else bounds
            case "quantiles":
                return self._quantiles(wanted, share)
            case "upper":
                return self._upper(wanted, part_of(self._certify.alpha, share))
            case "scalar":
                return self._scalar(wanted, share).score
            case "law":
                return self._scalar(wanted, share).law
            case _:
                return self._statistic(wanted, share)

    def _lower_bounds(self, ranks: int) -> dict[Fraction, Array]:
        """Lower confidence bounds of the reported means by share of alpha: of rivals only where theirs are asked."""
        own = self._layout.first_class_rival
        asked = {each.level: own for each in evidence() if _is_plain_mean(each)}
        for certificate in CATALOGUE:
            share = certificate.share_of_alpha
            if any(each.kind == "rival" for each in certificate.basis):
                asked[share] = self._layout.reported
                asked[share / ranks] = self._layout.reported
            elif any(_is_plain_mean(each) for each in certificate.basis):
                asked.setdefault(share, own)
                if any(each.ranked for each in certificate.basis):
                    asked.setdefault(share / ranks, own)
        found: dict[Fraction, Array] = {}
        for share in sorted(asked, reverse=True):
            rows, alpha = self._scores[:, : asked[share]], part_of(self._certify.alpha, share)
            bounds = lower_bound(
                rows,
                alpha,
                self._certify.method,
                counts=np.repeat(self._counts[:, None], rows.shape[1], axis=1),
                bets=self._bets(
                    np.concatenate([m.question.pilot[: asked[share]] for m in self._batch]), alpha
                ),
            )
            # A betting bound tuned for a smaller alpha may come out above that for a larger one. The smaller of the
            # two holds as well, and so a row's bounds at alpha are never below what its certificates rest on.
            for larger in found.values():
                both = min(larger.shape[1], bounds.shape[1])
                bounds[:, :both] = np.minimum(bounds[:, :both], larger[:, :both])
            found[share] = bounds
        return found

    def _bets(self, pilot: Array, alpha: float) -> Bets | None:
        """How to bet on means of scores by what the pilot draws (rows, n0) showed of each."""
        certify = self._certify
        if certify.method != "betting":
            return None
        return choose_bets(pilot, alpha, certify.max_draws, fixed=not self._anytime)

    def _mean(self, wanted: Evidence, share: Fraction) -> Array:
        return self._lower[share][:, self._layout.position(wanted.direction)]

    def _share(self, wanted: Evidence, share: Fraction) -> Array:
        """Of votes: exact at a number of draws fixed beforehand, by betting where targets may have stopped early."""
        method: Method = "betting" if self._anytime else "clopper_pearson"
        votes = self._scores[:, self._layout.position(wanted.direction)]
        return lower_bound(votes, part_of(self._certify.alpha, share), method, counts=self._counts)

    def _quantiles(self, wanted: Evidence, share: Fraction) -> Array:
        """By order statistics of the draws, each shift by itself."""
        percentile = self._certify.percentile
        assert percentile is not None
        bounds = percentile_bound(
            self._scores[:, self._layout.position(wanted.direction)],
            PERCENTILE_SHIFTS,
            1.0,
            part_of(self._certify.alpha, share),
            percentile=percentile,
            counts=self._counts,
            anytime=self._anytime,
        )
        bounds = np.where(np.isnan(bounds), 0.0, bounds)
        return projection_of_score(bounds) if wanted.projection else bounds

    def _upper(self, wanted: Evidence, alpha: float) -> Array:
        """Of the features' second moment, and of the draws that it leaves out (docs/theory.md T7)."""
        spreads = [each for m in self._batch if (each := m.spread) is not None]
        anytime = bool(self._layout.targets)
        if wanted == ESCAPE:
            inside = np.zeros((len(spreads), max(len(each.inside) for each in spreads)))
            counts = np.array([len(each.inside) for each in spreads])
            for row, each in zip(inside, spreads, strict=True):
                row[: len(each.inside)] = each.inside
            return 1.0 - lower_bound(
                inside, alpha, "betting" if anytime else "clopper_pearson", counts=counts
            )
        assert wanted == EIGENVALUE
        values = np.array([(each.eigenvalue, len(each.inside), each.squared_radius) for each in spreads]).T
        return eigenvalue_upper_bound(values[0], values[1], alpha, values[2], anytime=anytime)

    def _scalar(self, wanted: Evidence, share: Fraction) -> ScalarBounds:
        """Scalars along a fixed direction, at a share of alpha less the part of what stands beside them."""
        assert wanted.direction
        if wanted.direction not in self._scalars:
            position = self._layout.position(wanted.direction)
            draws = join_draws([self.draws(i, position, 1) for i in range(len(self._batch))])
            meter = ScalarMeter(self._certify, part_of(self._certify.alpha, share * (1 - BESIDE)))
            self._scalars[wanted.direction] = meter.along(draws, _least(wanted))
        return self._scalars[wanted.direction]

    def _statistic(self, wanted: Evidence, share: Fraction) -> Array:
        assert wanted.statistic is not None and wanted.direction
        level, position = part_of(self._certify.alpha, share), self._layout.position(wanted.direction)
        if (self._counts == self._scores.shape[2]).all():
            return wanted.statistic(self._scores[:, position], level, self._anytime)
        return np.stack([wanted.statistic(m.scores[position], level, self._anytime) for m in self._batch])


def _least(scalar: Evidence) -> float:
    """Bounds of cosines are of no use below 0."""
    return -1.0 if scalar.direction == "caption" else 0.0


def _is_plain_mean(wanted: Evidence) -> bool:
    """Whether it is bounded by the job's method, together with the other means."""
    return wanted.kind == "mean" and not wanted.votes
