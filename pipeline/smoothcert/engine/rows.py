"""From measurements to certificates: the bounds of theory.md section 2, batched over pairs.

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
    angular_bound,
    angular_radius,
    clean_reference_bound,
    dual_bound,
    fcsb,
    fcsb_radius,
    large_radius_bound,
    margin_radius,
    rank_radius,
)
from smoothcert.encoders import Encoder
from smoothcert.engine.layout import CAPTION, CLEAN, PILOT, Layout
from smoothcert.engine.noise import generator_name
from smoothcert.engine.question import Rivals
from smoothcert.engine.records import Failure, Measurement, Outcome
from smoothcert.engine.texts import Texts
from smoothcert.job import CertifySection
from smoothcert.statistics import Method, lower_bound

Array = NDArray[np.float64]

LARGE_RADIUS_LEVELS = 8
"""Thresholds of the staircase bound (T6)."""


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


def _margin_from_norm(norm: float, alignment: float) -> float:
    """Lower bound of <m, -w> from <m, v> >= norm, |m| <= 1 and <v, w> = alignment alone.

    m = cos(a) v + (orthogonal part of length at most sin(a)), cos(a) >= norm; the margin
    -alignment cos(a) - sqrt(1 - alignment^2) sin(a) is smallest at the largest angle that is allowed while it falls.
    """
    largest = float(np.arccos(np.clip(norm, -1.0, 1.0)))
    angle_to_away = float(np.arccos(np.clip(-alignment, -1.0, 1.0)))
    return float(np.cos(min(np.pi, largest + angle_to_away)) - 1e-12)


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
    fcsb: tuple[float | None, ...] | None = None
    angular: tuple[float | None, ...] | None = None
    clean_reference: tuple[float | None, ...] | None = None
    large_radius: tuple[float | None, ...] | None = None
    fcsb_radius: tuple[float | None, ...] | None = None
    angular_radius: tuple[float | None, ...] | None = None
    caption_similarity: float | None = None
    caption_similarity_lcb: float | None = None
    caption_bound: tuple[float | None, ...] | None = None
    clean_label: str | None = None
    predicted_label: str | None = None
    class_margin: float | None = None
    class_margin_lcb: float | None = None
    certified_radius: float | None = None
    retrieval_rank: int | None = None
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

    def rows(self, outcomes: Sequence[Outcome]) -> list[CertificateRow]:
        """One row per outcome, in the same order; certificates are computed for all of them at once."""
        measured = [outcome for outcome in outcomes if isinstance(outcome, Measurement)]
        certified = iter(self._certified(measured))
        return [
            next(certified) if isinstance(outcome, Measurement) else self._quarantined(outcome)
            for outcome in outcomes
        ]

    def _base(self, outcome: Outcome) -> dict[str, object]:
        pair = outcome.pair
        return {
            "unit_id": outcome.unit_id,
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

    def _quarantined(self, failure: Failure) -> CertificateRow:
        error = failure.error
        fields = self._base(failure) | {
            "status": "quarantined",
            "error_stage": error.stage,
            "error_class": type(error).__name__,
            "error_message": str(error),
        }
        return CertificateRow(**fields)  # type: ignore[arg-type]  # a dict of columns, checked by the schema

    def _certified(self, batch: Sequence[Measurement]) -> list[CertificateRow]:
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
        columns: dict[str, Array] = {
            "fcsb": _grid(lambda r: fcsb(score, r, sigma), c.radii),
            "angular": _grid(lambda r: angular_bound(positive, r, sigma), c.radii),
            "clean_reference": _grid(
                lambda r: clean_reference_bound(_projection(bounds.half[:, CLEAN]), norm_half, r, sigma),
                c.radii,
            ),
            "large_radius": self._large_radius(batch),
            "fcsb_radius": _grid(lambda tau: fcsb_radius(score, tau, sigma), c.cosines),
            "angular_radius": _grid(lambda tau: angular_radius(positive, tau, sigma), c.cosines),
        }
        if layout.caption:
            columns["caption_bound"] = self._caption_bounds(batch, bounds, norm_half)
        class_margins, class_radii = self._rival_results(
            batch, bounds, norm_half, [m.question.classes for m in batch], layout.first_class_rival, 1
        )
        _, pool_radii = self._rival_results(
            batch,
            bounds,
            norm_half,
            [m.question.pool for m in batch],
            layout.first_pool_rival,
            self._texts.retrieval_k,
        )
        rows = []
        for i, m in enumerate(batch):
            q = m.question
            fields = self._base(m) | {
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
            if q.predicted is not None and q.clean_class is not None:
                first = layout.first_class_rival
                fields["predicted_label"] = self._texts.labels[q.predicted]
                fields["clean_label"] = self._texts.labels[q.clean_class]
                fields["class_margin"] = _number(
                    min(_signed(v) for v in means[i, first : first + layout.class_rivals])
                )
                fields["class_margin_lcb"] = _number(class_margins[i])
                fields["certified_radius"] = _number(class_radii[i])
            if q.pool is not None:
                fields["retrieval_rank"] = q.rank
                fields["retrieval_radius"] = _number(pool_radii[i])
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

        half = bound(slice(None), c.alpha / 2)
        ranked = half
        if self._texts.retrieval_k > 1 and layout.pool_rivals:
            ranked = bound(slice(None), c.alpha / 2 / self._texts.retrieval_k)
        return _LowerBounds(bound(slice(0, layout.first_class_rival), c.alpha), half, ranked)

    def _caption_bounds(self, batch: Sequence[Measurement], bounds: _LowerBounds, norm: Array) -> Array:
        """Lower bounds of <m(x+delta), t>: minus T4's upper bounds for w = -t, from s_t and N."""
        a = np.array([m.question.caption_alignment for m in batch], dtype=np.float64)
        one = np.ones_like(a)
        # (w, v_1, v_2) = (-t, t, pilot)
        gram = np.array([[one, -one, -a], [-one, one, a], [-a, a, one]]).transpose(2, 0, 1)
        lower = np.stack([_projection(bounds.half[:, CAPTION]), norm], axis=1)
        return _grid(lambda r: -dual_bound(gram, lower, r, self._certify.sigma), self._certify.radii)

    def _rival_results(
        self,
        batch: Sequence[Measurement],
        bounds: _LowerBounds,
        norm: Array,
        rivals: Sequence[Rivals | None],
        first: int,
        k: int,
    ) -> tuple[Array, Array]:
        """Smallest certified margin and certified radius of each pair (NaN: none).

        Args:
            batch: the measurements.
            bounds: their lower bounds.
            norm: (P,) lower bounds of N at alpha/2.
            rivals: competitors of each pair's text.
            first: position of the first rival direction.
            k: rank that is certified; 1 is "nearest".
        """
        margins = np.full(len(batch), np.nan)
        radii = np.full(len(batch), np.nan)
        groups = [(i, group) for i, group in enumerate(rivals) if group is not None]
        if not groups:
            return margins, radii
        source = bounds.half if k == 1 else bounds.ranked
        pilots = norm if k == 1 else _projection(bounds.ranked[:, PILOT])
        sigma = self._certify.sigma
        # one call for the measured rivals of all pairs, one for the worst of each pair's others
        sizes = [len(group.measured) for _, group in groups]
        measured = margin_radius(
            np.concatenate(
                [
                    _projection(source[i, first : first + size])
                    for (i, _), size in zip(groups, sizes, strict=True)
                ]
            ),
            np.repeat([pilots[i] for i, _ in groups], sizes),
            np.concatenate([group.alignment for _, group in groups]),
            sigma,
        )
        worst = np.array(
            [-1.0 if group.others_alignment is None else group.others_alignment for _, group in groups]
        )
        others = margin_radius(None, np.array([pilots[i] for i, _ in groups]), worst, sigma)
        for (i, group), each, other in zip(
            groups, np.split(measured, np.cumsum(sizes)[:-1]), others, strict=True
        ):
            lowest = list(_projection(bounds.half[i, first : first + len(each)]))
            if group.others_alignment is not None:
                each = np.append(each, [other] * k)
                lowest.append(_margin_from_norm(float(norm[i]), group.others_alignment))
            radii[i] = rank_radius(each, k)
            margins[i] = min(lowest, default=np.nan)  # without a rival there is no margin
        return margins, radii

    def _large_radius(self, batch: Sequence[Measurement]) -> Array:
        """T6 on the clean feature: a staircase of exceedance probabilities.

        Thresholds are fixed: they may not depend on the certify draws.
        """
        c = self._certify
        levels = np.linspace(0.0, 0.875, LARGE_RADIUS_LEVELS)
        method: Method = "clopper_pearson" if not self._layout.targets else "betting"
        values = np.full((len(batch), LARGE_RADIUS_LEVELS), np.nan)
        for i, m in enumerate(batch):
            above = (m.scores[CLEAN][None, :] >= (1.0 + levels[:, None]) / 2.0).astype(np.float64)
            values[i] = lower_bound(above, c.alpha / LARGE_RADIUS_LEVELS, method)
        return _grid(lambda r: large_radius_bound(values, levels, r, c.sigma), c.radii)


@dataclass(frozen=True)
class _LowerBounds:
    """Bounds of mean scores: of pilot, clean and caption at alpha; of all at alpha/2, and at alpha/(2k) for ranks."""

    whole: Array
    half: Array
    ranked: Array
