"""From measurements to certificates: the bounds of docs/theory.md section 2, batched over pairs.

Failure probabilities. Every reported certificate holds with probability 1 - alpha by itself:

* one mean (``smooth_norm_lcb``, ``robustness_score_lcb``, ``fcsb``, ``angular``): alpha goes to that mean;
* two means (``clean_reference``, ``caption_bound``, class and retrieval radii): alpha/2 each;
* a class radius is the smallest over rivals; it is false only if the bound of the one truly nearest rival is, so
  rivals need no further split; rank at most k needs alpha/k each;
* ``large_radius``: alpha split evenly over its thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smoothcert.certificates import (
    LARGE_RADIUS_THRESHOLDS,
    angular_bound,
    angular_radius,
    clean_reference_bound,
    fcsb,
    fcsb_radius,
    large_radius_bound,
    similarity_bound,
)
from smoothcert.datasets import Pair
from smoothcert.encoders import Encoder
from smoothcert.engine.layout import CAPTION, CLEAN, PILOT, Layout
from smoothcert.engine.noise import generator_name
from smoothcert.engine.question import Rivals
from smoothcert.engine.records import Failure, Measurement, PairResult
from smoothcert.engine.rival_bounds import NOT_MEASURED, RivalBounds, bound_rivals
from smoothcert.engine.texts import Texts
from smoothcert.job import CertifySection
from smoothcert.statistics import Method, lower_bound

Array = NDArray[np.float64]


def _signed(score: float) -> float:
    """From a score in [0, 1] back to a projection in [-1, 1]."""
    return float(2.0 * score - 1.0)


def _projection(scores: Array) -> Array:
    """The same for lower bounds; rounded down."""
    return np.maximum(np.nextafter(2.0 * scores - 1.0, -2.0), -1.0)


def _number(value: float) -> float | None:
    """Vacuous is NULL in tables."""
    return None if np.isnan(value) else float(value)


def _grid(bound: Callable[[float], Array], points: Sequence[float]) -> Array:
    """One column per radius or cosine: (P, len(points))."""
    return np.stack([bound(point) for point in points], axis=1)


@dataclass(frozen=True, kw_only=True)
class CertificateRow:
    """One pair of the input: its certificates, or why it has none. Columns are documented in ``schemas/``."""

    unit_id: str
    pair_id: str
    source_uri: str
    caption: str | None
    captions: tuple[str, ...]
    label: str | None
    status: str
    error_stage: str | None = None
    error_class: str | None = None
    error_message: str | None = None
    sigma: float
    alpha: float
    input_height: int
    input_width: int
    draws: int = 0
    pilot_draws: int = 0
    stop_reason: str | None = None
    smooth_norm: float | None = None
    smooth_norm_lcb: float | None = None
    robustness_score: float | None = None
    robustness_score_lcb: float | None = None
    exceedance_lcb: tuple[float | None, ...] | None = None
    fcsb: tuple[float | None, ...] | None = None
    angular: tuple[float | None, ...] | None = None
    clean_reference: tuple[float | None, ...] | None = None
    large_radius: tuple[float | None, ...] | None = None
    fcsb_radius: tuple[float | None, ...] | None = None
    angular_radius: tuple[float | None, ...] | None = None
    caption_similarity: float | None = None
    caption_similarity_lcb: float | None = None
    caption_alignment: float | None = None
    caption_bound: tuple[float | None, ...] | None = None
    clean_label: str | None = None
    predicted_label: str | None = None
    class_margin: float | None = None
    class_margin_lcb: float | None = None
    class_rival: str | None = None
    class_rival_margin_lcb: float | None = None
    class_rival_alignment: float | None = None
    certified_radius: float | None = None
    retrieval_rank: int | None = None
    retrieval_rival_margin_lcb: float | None = None
    retrieval_rival_alignment: float | None = None
    retrieval_radius: float | None = None
    target_decision: tuple[str, ...] | None = None
    log_e_value: tuple[float, ...] | None = None
    encoder_digest: str
    seed: int
    noise: str
    device: str
    dtype: str


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
            "pair_id": pair.pair_id,
            "source_uri": pair.source_uri,
            "caption": pair.captions[0] if pair.captions else None,
            "captions": pair.captions,
            "label": pair.label,
            "sigma": self._certify.sigma,
            "alpha": self._certify.alpha,
            "input_height": self._size[0],
            "input_width": self._size[1],
            **self._described,
        }

    def _quarantined(self, unit_id: str, failure: Failure) -> CertificateRow:
        error = failure.error
        fields = self._base(unit_id, failure.pair) | {
            "status": "quarantined",
            "error_stage": error.stage,
            "error_class": type(error).__name__,
            "error_message": str(error),
        }
        return CertificateRow(**fields)  # type: ignore[arg-type]  # a dict of columns, checked by the schema

    def _certified(self, unit_id: str, batch: Sequence[Measurement]) -> list[CertificateRow]:
        if not batch:
            return []
        c, layout = self._certify, self._layout
        sigma = c.sigma
        bounds = self._lower_bounds(batch)
        means = np.array([m.scores.mean(axis=1) for m in batch])
        norm = _projection(bounds.whole[:, PILOT])
        positive = np.maximum(norm, 0.0)  # a norm is no less: then nothing follows from it
        norm_half = _projection(bounds.half[:, PILOT])
        score = bounds.whole[:, CLEAN]
        exceedance = self._exceedance(batch)
        columns: dict[str, Array] = {
            "exceedance_lcb": exceedance,
            "fcsb": _grid(lambda r: fcsb(score, r, sigma), c.radii),
            "angular": _grid(lambda r: angular_bound(positive, r, sigma), c.radii),
            "clean_reference": _grid(
                lambda r: clean_reference_bound(_projection(bounds.half[:, CLEAN]), norm_half, r, sigma),
                c.radii,
            ),
            "large_radius": _grid(
                lambda r: large_radius_bound(exceedance, LARGE_RADIUS_THRESHOLDS, r, sigma), c.radii
            ),
            "fcsb_radius": _grid(lambda tau: fcsb_radius(score, tau, sigma), c.cosines),
            "angular_radius": _grid(lambda tau: angular_radius(positive, tau, sigma), c.cosines),
        }
        if layout.caption:
            columns["caption_bound"] = self._caption_bounds(batch, bounds, norm_half)
        classes = self._rivals(
            bounds, [m.question.classes for m in batch], layout.first_class_rival, layout.class_rivals, 1
        )
        pool = self._rivals(
            bounds,
            [m.question.pool for m in batch],
            layout.first_pool_rival,
            layout.pool_rivals,
            self._texts.retrieval_k,
        )
        rows = []
        for i, m in enumerate(batch):
            q = m.question
            fields = self._base(unit_id, m.pair) | {
                "status": "ok",
                "draws": m.draws,
                "pilot_draws": m.pilot_draws,
                "stop_reason": m.stop_reason,
                "smooth_norm": _number(_signed(means[i, PILOT])),
                "smooth_norm_lcb": float(norm[i]) if norm[i] > 0 else None,
                "robustness_score": _number(means[i, CLEAN]),
                "robustness_score_lcb": _number(score[i]),
                "target_decision": m.decisions,
                "log_e_value": m.log_e_values,
                **{name: tuple(_number(v) for v in values[i]) for name, values in columns.items()},
            }
            if layout.caption:
                fields["caption_similarity"] = _number(_signed(means[i, CAPTION]))
                fields["caption_similarity_lcb"] = _number(float(_projection(bounds.whole[:, CAPTION])[i]))
                fields["caption_alignment"] = q.caption_alignment
            if q.predicted is not None and q.clean_class is not None:
                first = layout.first_class_rival
                fields["predicted_label"] = self._texts.labels[q.predicted]
                fields["clean_label"] = self._texts.labels[q.clean_class]
                fields["class_margin"] = _number(
                    min(_signed(v) for v in means[i, first : first + layout.class_rivals])
                )
                fields["class_margin_lcb"] = _number(classes.smallest_margin[i])
                if classes.rival[i] != NOT_MEASURED:
                    fields["class_rival"] = self._texts.labels[classes.rival[i]]
                fields["class_rival_margin_lcb"] = _number(classes.margin[i])
                fields["class_rival_alignment"] = _number(classes.alignment[i])
                fields["certified_radius"] = _number(classes.radius[i])
            if q.pool is not None:
                fields["retrieval_rank"] = q.rank
                fields["retrieval_rival_margin_lcb"] = _number(pool.margin[i])
                fields["retrieval_rival_alignment"] = _number(pool.alignment[i])
                fields["retrieval_radius"] = _number(pool.radius[i])
            rows.append(CertificateRow(**fields))  # type: ignore[arg-type]  # as above
        return rows

    def _lower_bounds(self, batch: Sequence[Measurement]) -> _LowerBounds:
        """Lower confidence bounds of the reported means, each at the levels that something rests on."""
        c, layout = self._certify, self._layout
        counts = np.array([m.draws for m in batch])
        scores = np.zeros((len(batch), layout.reported, int(counts.max())))
        for i, m in enumerate(batch):
            scores[i, :, : m.draws] = m.scores

        def bound(part: slice, alpha: float) -> Array:
            rows = scores[:, part]
            return lower_bound(
                rows, alpha, c.method, counts=np.repeat(counts[:, None], rows.shape[1], axis=1)
            )

        own = layout.first_class_rival
        whole, half = bound(slice(0, own), c.alpha), bound(slice(None), c.alpha / 2)
        # A betting bound tuned for a smaller alpha may come out above that for a larger one. The smaller of the two
        # holds as well, and so a row's bounds at alpha are never below what its certificates rest on.
        half[:, :own] = np.minimum(half[:, :own], whole)
        ranked = half
        if self._texts.retrieval_k > 1 and layout.pool_rivals:
            ranked = np.minimum(bound(slice(None), c.alpha / 2 / self._texts.retrieval_k), half)
        return _LowerBounds(whole, half, ranked)

    def _caption_bounds(self, batch: Sequence[Measurement], bounds: _LowerBounds, norm: Array) -> Array:
        """(P, radii) lower bounds of <m(x+delta), t>, from s_t and N."""
        similarity = _projection(bounds.half[:, CAPTION])
        alignment = np.array([m.question.caption_alignment for m in batch], dtype=np.float64)
        sigma = self._certify.sigma
        return _grid(lambda r: similarity_bound(similarity, norm, alignment, r, sigma), self._certify.radii)

    def _rivals(
        self, bounds: _LowerBounds, rivals: Sequence[Rivals | None], first: int, places: int, k: int
    ) -> RivalBounds:
        """Results against rivals whose directions stand from position ``first`` on; a rank splits alpha over k."""
        source = bounds.half if k == 1 else bounds.ranked
        margins = _projection(source[:, first : first + places])
        return bound_rivals(rivals, margins, _projection(source[:, PILOT]), self._certify.sigma, k)

    def _exceedance(self, batch: Sequence[Measurement]) -> Array:
        """(P, thresholds) lower bounds of P(<u(x+eps), u(x)> >= c_j), of which T6 makes a staircase."""
        c = self._certify
        method: Method = "clopper_pearson" if not self._layout.targets else "betting"
        thresholds = (1.0 + np.array(LARGE_RADIUS_THRESHOLDS)[:, None]) / 2.0
        values = np.full((len(batch), len(LARGE_RADIUS_THRESHOLDS)), np.nan)
        for i, m in enumerate(batch):
            above = (m.scores[CLEAN][None, :] >= thresholds).astype(np.float64)
            values[i] = lower_bound(above, c.alpha / len(LARGE_RADIUS_THRESHOLDS), method)
        return values


@dataclass(frozen=True)
class _LowerBounds:
    """Bounds of mean scores: of pilot, clean and caption at alpha; of all at alpha/2, and at alpha/(2k) for ranks."""

    whole: Array
    half: Array
    ranked: Array
