"""From measurements to certificates: the bounds of docs/theory.md section 2, batched over pairs.

Which columns there are, what each rests on and at which share of alpha is the catalogue's; every reported certificate
holds with probability 1 - alpha by itself. Class and rank are found here, since their binding rival is: a class radius
is the smallest over rivals; it is false only if the bound of the one truly nearest rival is, so rivals need no further
split; rank at most k needs alpha/k each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from smoothcert.catalogue.certificate import Certificate, Form
from smoothcert.catalogue.certificates import CATALOGUE, of_name
from smoothcert.catalogue.evidence import BESIDE, Evidence, part_of
from smoothcert.datasets import Pair
from smoothcert.encoders import Encoder
from smoothcert.engine.beside import Means, against_beside, rival_means
from smoothcert.engine.certificate_row import CertificateRow
from smoothcert.engine.distribution import ScalarBounds, ScalarMeter
from smoothcert.engine.evidence import BatchEvidence
from smoothcert.engine.layout import PILOT, Layout
from smoothcert.engine.noise import generator_name
from smoothcert.engine.pair_row import failure_fields, pair_fields
from smoothcert.engine.records import Failure, Measurement, PairResult
from smoothcert.engine.rival_bounds import NOT_MEASURED, RivalBounds, bound_rivals
from smoothcert.engine.rivals import Rivals
from smoothcert.engine.texts import Texts
from smoothcert.job import CertifySection

Array = NDArray[np.float64]


def _signed(score: float) -> float:
    """From a score in [0, 1] back to a projection in [-1, 1]."""
    return float(2.0 * score - 1.0)


def _number(value: float) -> float | None:
    """Vacuous is NULL in tables."""
    return None if np.isnan(value) else float(value)


def _cell(values: Array | float) -> float | None | tuple[float | None, ...]:
    """One number of a column, or a list of them."""
    if np.ndim(values) == 0:
        return _number(float(values))
    return tuple([None if value != value else value for value in np.asarray(values).tolist()])


def _at_each(
    form: Form, basis: Sequence[Evidence], known: Sequence[Array], points: Sequence[float], sigma: float
) -> Array:
    """(P, points) of a form; NaN where nothing was asked at a radius, of what rests on something else at each."""
    if not any(each.per_radius for each in basis):
        # at all of them at once: most of what a bound costs is a call
        return np.asarray(form.function(*(values[:, None] for values in known), np.asarray(points), sigma))
    found = np.full((len(known[0]), len(points)), np.nan)
    for i, point in enumerate(points):
        here = [
            values[:, i] if each.per_radius else values for each, values in zip(basis, known, strict=True)
        ]
        asked = np.all([np.isfinite(values.reshape(len(values), -1)).all(axis=1) for values in here], axis=0)
        if asked.any():
            found[asked, i] = form.function(*(values[asked] for values in here), point, sigma)
    return found


class RowMaker:
    """Turns outcomes of one job into rows.

    Args:
        encoder: for the columns that describe it.
        certify: radii, cosines, alpha, method.
        texts: names behind the indices.
        layout: positions of the directions.
    """

    def __init__(self, encoder: Encoder, certify: CertifySection, texts: Texts, layout: Layout) -> None:
        self._certify = certify
        self._texts = texts
        self._layout = layout
        self._size = encoder.input_size
        self._described = {
            "encoder_digest": encoder.digest,
            "seed": certify.seed,
            "noise": generator_name(encoder.device),
            "device": encoder.device.type,
            "dtype": str(encoder.dtype).removeprefix("torch."),
        }

    def rows(self, unit_id: str, outcomes: Sequence[PairResult]) -> list[CertificateRow]:
        """One row per outcome of a unit, in the same order; certificates are computed for all of them at once."""
        measured = [outcome for outcome in outcomes if isinstance(outcome, Measurement)]
        certified = iter(self._certified(unit_id, measured))
        return [
            next(certified) if isinstance(outcome, Measurement) else self._quarantined(unit_id, outcome)
            for outcome in outcomes
        ]

    def _base(self, unit_id: str, pair: Pair) -> dict[str, object]:
        return {
            "unit_id": unit_id,
            **pair_fields(pair),
            "caption": pair.captions[0] if pair.captions else None,
            "captions": pair.captions,
            "label": pair.label,
            "kept": pair.kept or None,
            "image_digest": pair.image_digest,
            "sigma": self._certify.sigma,
            "alpha": self._certify.alpha,
            "input_height": self._size[0],
            "input_width": self._size[1],
            **self._described,
        }

    def _quarantined(self, unit_id: str, failure: Failure) -> CertificateRow:
        fields = self._base(unit_id, failure.pair) | failure_fields(failure.pair, failure.error)
        return CertificateRow(**fields)  # type: ignore[arg-type]  # a dict of columns, checked by the schema

    def _certified(self, unit_id: str, batch: Sequence[Measurement]) -> list[CertificateRow]:
        if not batch:
            return []
        evidence = BatchEvidence(batch, self._certify, self._layout, self._texts.retrieval_k)
        columns = self._columns(evidence)
        classes = self._class_columns(batch, evidence)
        ranks = self._rank_columns(batch, evidence)
        rows = []
        for i, m in enumerate(batch):
            fields = self._base(unit_id, m.pair) | {
                "draws": m.draws,
                "pilot_draws": m.pilot_draws,
                "stop_reason": m.stop_reason,
                "target_decision": m.decisions,
                "log_e_value": m.log_e_values,
                **{name: _cell(values[i]) for name, values in columns.items()},
                **classes[i],
                **ranks[i],
            }
            rows.append(CertificateRow(**fields))  # type: ignore[arg-type]  # as above
        return rows

    def _columns(self, evidence: BatchEvidence) -> dict[str, Array]:
        """Every column that follows from fixed directions, by name: (P,), or (P, k) for lists."""
        found: dict[str, Array] = {}
        for certificate in CATALOGUE:
            if not evidence.supports(certificate.basis):
                continue
            beside = of_name(certificate.beside).bound if certificate.beside else None
            if beside is not None:
                evidence.put_beside(certificate, found[beside.column])
            found |= self._forms(certificate, evidence)
        for each in evidence.measured():
            values = evidence.at(each, each.level)
            if each.estimate:
                found[each.estimate] = evidence.estimates(each)
                # a bound that says no more than what NULL stands for is NULL
                values = values if each.null is None else np.where(values > each.null, values, np.nan)
            found[each.column] = values.reshape(len(values), -1) if each.per_radius else values
        return found

    def _forms(self, certificate: Certificate, evidence: BatchEvidence) -> dict[str, Array]:
        """The columns of one certificate."""
        certify, sigma = self._certify, self._certify.sigma
        found: dict[str, Array] = {}
        known = [evidence.at(each, certificate.share_of_alpha) for each in certificate.basis]
        for form, points in ((certificate.bound, certify.radii), (certificate.radius_at, certify.cosines)):
            if form is not None:
                values = _at_each(form, certificate.basis, known, points, sigma)
                # what holds at a radius holds at the next smaller one; a search for multipliers may not know it
                falls = form is certificate.bound
                found[form.column] = np.minimum.accumulate(values, axis=1) if falls else values
        if certificate.radius is not None:
            found[certificate.radius.column] = certificate.radius.function(*known, sigma)
        return found

    def _class_columns(
        self, batch: Sequence[Measurement], evidence: BatchEvidence
    ) -> list[dict[str, object]]:
        """The predicted class and what binds it, of each pair."""
        first, places = self._layout.first_class_rival, self._layout.class_rivals
        found = self._rivals("class", evidence, [m.question.classes for m in batch], first, places)
        scalars = self._scalars("class", evidence, [m.question.classes for m in batch], first, found)
        means = evidence.means(first, places)
        rows: list[dict[str, object]] = []
        for i, m in enumerate(batch):
            q = m.question
            if q.predicted is None or q.clean_class is None:
                rows.append({})
                continue
            rival = found.rival[i]
            rows.append(
                {
                    "predicted_label": self._texts.labels[q.predicted],
                    "clean_label": self._texts.labels[q.clean_class],
                    "vote_label": None if q.voted is None else self._texts.labels[q.voted],
                    "class_margin": _number(min(_signed(v) for v in means[i])),
                    "class_margin_lcb": _number(found.smallest_margin[i]),
                    "class_rival": None if rival == NOT_MEASURED else self._texts.labels[rival],
                    "class_rival_margin_lcb": _number(found.margin[i]),
                    "class_rival_alignment": _number(found.alignment[i]),
                    "certified_radius": _number(found.radius[i]),
                    **_scalar_columns("class", scalars, i),
                }
            )
        return rows

    def _rank_columns(self, batch: Sequence[Measurement], evidence: BatchEvidence) -> list[dict[str, object]]:
        """The own caption's rank and what binds it, of each pair."""
        first, places = self._layout.first_pool_rival, self._layout.pool_rivals
        pools = [m.question.pool for m in batch]
        k = self._texts.retrieval_k
        found = self._rivals("retrieval", evidence, pools, first, places, k)
        scalars = self._scalars("retrieval", evidence, pools, first, found, k)
        return [
            {
                "retrieval_rank": m.question.rank,
                "retrieval_rival_margin_lcb": _number(found.margin[i]),
                "retrieval_rival_alignment": _number(found.alignment[i]),
                "retrieval_radius": _number(found.radius[i]),
                **_scalar_columns("retrieval", scalars, i),
            }
            if m.question.pool is not None
            else {}
            for i, m in enumerate(batch)
        ]

    def _rivals(
        self,
        name: str,
        evidence: BatchEvidence,
        rivals: Sequence[Rivals | None],
        first: int,
        places: int,
        k: int = 1,
    ) -> RivalBounds:
        """Results against rivals whose directions stand from position ``first`` on; a rank splits alpha over k."""
        if not places:
            return bound_rivals([None] * len(rivals), np.empty((0, 0)), np.empty(0), self._certify.sigma, k)
        share = of_name(name).share_of_alpha / k
        margins = evidence.projections(share, first, places)
        pilots = evidence.projections(share, PILOT, 1)[:, 0]
        return bound_rivals(rivals, margins, pilots, self._certify.sigma, k)

    def _scalars(
        self,
        name: str,
        evidence: BatchEvidence,
        rivals: Sequence[Rivals | None],
        first: int,
        beside: RivalBounds,
        k: int = 1,
    ) -> ScalarBounds:
        """What scalars of the rivals from position ``first`` on prove, and T4 beside them (docs/theory.md T8)."""
        certify = self._certify
        share = of_name(f"{name}_distribution").share_of_alpha / k
        draws = [
            None if each is None else evidence.rival_draws(i, each, first, f"{name}_rest")
            for i, each in enumerate(rivals)
        ]
        found = ScalarMeter(certify, part_of(certify.alpha, share * (1 - BESIDE))).against(draws, k)

        def means_of(pairs: NDArray[np.intp]) -> list[Means]:
            groups = [group for i in pairs if (group := rivals[i]) is not None]
            places = max(len(group.measured) for group in groups)
            low, sampled = evidence.beside(pairs, (PILOT, *range(first, first + places)), k)
            return [
                rival_means(group, bounds, values)
                for group, bounds, values in zip(groups, low, sampled, strict=True)
            ]

        against_beside(found, beside.radius, rivals, means_of, certify.radii, certify.sigma, k)
        return found


def _scalar_columns(name: str, found: ScalarBounds, i: int) -> dict[str, object]:
    """Of one pair: the columns of the catalogue's certificate of that name by the distribution."""
    return {
        f"{name}_scalar_lcb": _cell(found.score[i]),
        f"{name}_scalar": _cell(found.law[i].ravel()),
        f"{name}_distribution": _cell(found.bound[i]),
    }
