"""Confidence bounds of a batch of measurements, at every level that a certificate of the catalogue rests on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from smoothcert.catalogue.certificates import CATALOGUE, evidence, projection_of_score
from smoothcert.catalogue.evidence import CAPTION_ALIGNMENT, Evidence, part_of
from smoothcert.engine.layout import POSITIONS, Layout
from smoothcert.engine.question import Question
from smoothcert.engine.records import Measurement
from smoothcert.job import CertifySection
from smoothcert.statistics import lower_bound

Array = NDArray[np.float64]

_KNOWN: Mapping[str, Callable[[Question], float | None]] = {
    CAPTION_ALIGNMENT.column: lambda question: question.caption_alignment
}
"""Numbers that no draw is needed for, by their column."""


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
        self._means = np.array([m.scores.mean(axis=1) for m in batch])
        self._lower = self._lower_bounds(ranks if layout.pool_rivals else 1)

    def measured(self) -> list[Evidence]:
        """The catalogue's evidence that these draws give for every pair, whatever the binding rival."""
        return [each for each in evidence() if self._has(each)]

    def supports(self, basis: Sequence[Evidence]) -> bool:
        """Whether a certificate can be computed from ``at`` alone."""
        return all(self._has(each) for each in basis)

    def estimates(self, wanted: Evidence) -> Array:
        """(P,) sample means of what a bound of kind ``mean`` is about."""
        scores = self._means[:, POSITIONS[wanted.direction]]
        return 2.0 * scores - 1.0 if wanted.projection else scores

    def at(self, wanted: Evidence, share: Fraction) -> Array:
        """(P,) or (P, size) bounds, each at that share of alpha; what is known exactly, at any."""
        match wanted.kind:
            case "known":
                values = [_KNOWN[wanted.column](m.question) for m in self._batch]
                return np.array(values, dtype=np.float64)
            case "mean":
                bounds = self._lower[share][:, POSITIONS[wanted.direction]]
                return projection_of_score(bounds) if wanted.projection else bounds
            case _:
                return self._statistic(wanted, share)

    def means(self, first: int, places: int) -> Array:
        """(P, places) sample means of scores along the directions from ``first`` on."""
        return self._means[:, first : first + places]

    def projections(self, share: Fraction, first: int, places: int) -> Array:
        """(P, places) lower bounds of projections along these directions at a share that rivals are bounded at."""
        return projection_of_score(self._lower[share][:, first : first + places])

    def _has(self, wanted: Evidence) -> bool:
        if wanted.kind == "rival":
            return False
        if wanted.kind == "known":
            return wanted.column in _KNOWN and self._layout.caption
        return wanted.direction != "caption" or self._layout.caption

    def _lower_bounds(self, ranks: int) -> dict[Fraction, Array]:
        """Lower confidence bounds of the reported means by share of alpha: of rivals only where theirs are asked."""
        own = self._layout.first_class_rival
        asked = {each.level: own for each in evidence() if each.kind == "mean"}
        for certificate in CATALOGUE:
            share = certificate.share_of_alpha
            kinds = {each.kind for each in certificate.basis}
            if "rival" in kinds:
                asked[share] = self._layout.reported
                asked[share / ranks] = self._layout.reported
            elif "mean" in kinds:
                asked.setdefault(share, own)
        counts = np.array([m.draws for m in self._batch])
        scores = np.zeros((len(self._batch), self._layout.reported, int(counts.max())))
        for i, m in enumerate(self._batch):
            scores[i, :, : m.draws] = m.scores
        found: dict[Fraction, Array] = {}
        for share in sorted(asked, reverse=True):
            rows = scores[:, : asked[share]]
            bounds = lower_bound(
                rows,
                part_of(self._certify.alpha, share),
                self._certify.method,
                counts=np.repeat(counts[:, None], rows.shape[1], axis=1),
            )
            # A betting bound tuned for a smaller alpha may come out above that for a larger one. The smaller of the
            # two holds as well, and so a row's bounds at alpha are never below what its certificates rest on.
            for larger in found.values():
                both = min(larger.shape[1], bounds.shape[1])
                bounds[:, :both] = np.minimum(bounds[:, :both], larger[:, :both])
            found[share] = bounds
        return found

    def _statistic(self, wanted: Evidence, share: Fraction) -> Array:
        assert wanted.statistic is not None and wanted.direction
        level, position = part_of(self._certify.alpha, share), POSITIONS[wanted.direction]
        anytime = bool(self._layout.targets)
        return np.stack([wanted.statistic(m.scores[position], level, anytime) for m in self._batch])
