"""The published tables and the meaning of every column; ``schemas/`` is generated from here."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from smoothcert.catalogue.certificates import CATALOGUE, evidence, quantities
from smoothcert.catalogue.quantities import (
    CLASS_MARGIN,
    CLASS_VOTES,
    RANK_MARGIN,
    RANK_VOTES,
    TO_CAPTION,
    TO_CLEAN,
    TO_SMOOTHED,
    Quantity,
)
from smoothcert.store.tables.columns import Column, TableSchema
from smoothcert.store.tables.shared_columns import origin_columns, status_columns

_TEXT = pa.string()
_NUMBER = pa.float64()
_COUNT = pa.int32()
_NUMBERS = pa.list_(pa.field("element", pa.float64()))
_TEXTS = pa.list_(pa.field("element", pa.string()))

_PIXELS = "l2 distance in units of [0,1] pixels"
_COSINE = "cosine"
_OK_ONLY = " NULL in quarantined rows."


_PLACED = (TO_CLEAN, TO_SMOOTHED, TO_CAPTION, CLASS_MARGIN, CLASS_VOTES, RANK_MARGIN, RANK_VOTES)
"""Quantities whose certificates stand beside their estimates; those of any other follow behind."""


def _evidence() -> Iterator[Column]:
    """What certificates rest on and is not documented beside an estimate below."""
    for each in evidence():
        if each.meaning:
            kind = _NUMBERS if each.listed else _NUMBER
            yield Column(each.column, kind, each.meaning, nullable=True, source=each.source)


def _bounds(*wanted: Quantity) -> Iterator[Column]:
    """The columns of the certificates of some quantities: bounds first, then radii."""
    found = [each for each in CATALOGUE if each.quantity in wanted]
    for each in found:
        if each.bound is not None:
            unit = _COSINE if each.quantity.cosine else ""
            yield Column(
                each.bound.column, _NUMBERS, each.bound.meaning, nullable=True, unit=unit, source=each.source
            )
    for each in found:
        for form, kind in ((each.radius_at, _NUMBERS), (each.radius, _NUMBER)):
            if form is not None:
                yield Column(
                    form.column,
                    kind,
                    form.meaning,
                    nullable=True,
                    unit=_PIXELS,
                    source=each.source,
                    infinite=True,
                )


def _share(name: str, of: str, section: str) -> Iterator[Column]:
    """A share of draws, and its lower confidence bound."""
    missing = f"NULL without a {section} section."
    yield Column(
        name, _NUMBER, f"Share of the {of}. A tie is no vote. {missing}", nullable=True, source="theory T9"
    )
    yield Column(
        f"{name}_lcb",
        _NUMBER,
        f"Lower confidence bound of the probability that {name} estimates: exact at a fixed number of draws, by "
        f"betting where the job has targets. {missing}",
        nullable=True,
        source="theory T9",
    )


_IDENTITY = (
    *origin_columns(
        "The pair: name of the source file and key or row number inside it. One row per pair and run."
    ),
    Column("caption", _TEXT, "The first caption; NULL where there is none.", nullable=True),
    Column("captions", _TEXTS, "All captions, empty or NULL where there is none.", nullable=True),
    Column("label", _TEXT, "The class name given by the data; NULL where there is none.", nullable=True),
    Column(
        "kept",
        _TEXTS,
        "Own columns of the data, in the order of the job's data.keep; in SQL each is a column of its own name and "
        "type, too. NULL without data.keep, and where they could not be read.",
        nullable=True,
    ),
    Column(
        "image_digest",
        _TEXT,
        "SHA-256 of the image as the data has it, before any decoding, in hex. NULL where it was not read, and in rows "
        "of older versions.",
        nullable=True,
    ),
    *status_columns(
        "ok: certified as far as possible. quarantined: nothing is claimed about this pair.",
        "read, decode, caption, encode or worker",
    ),
)

_QUESTION = (
    Column("sigma", _NUMBER, "Standard deviation of the noise.", unit="[0,1] pixels", source="theory 1"),
    Column("alpha", _NUMBER, "Failure probability of each certificate of this row.", source="theory 3"),
    Column(
        "input_height",
        _COUNT,
        "Height of the image the encoder sees, where radii are measured.",
        unit="pixels",
    ),
    Column(
        "input_width", _COUNT, "Width of the image the encoder sees, where radii are measured.", unit="pixels"
    ),
    Column(
        "draws",
        _COUNT,
        "Fresh draws, which the bounds rest on. With the pilots, draws + pilot_draws: what the pair took.",
        unit="draws",
        source="theory 3",
    ),
    Column(
        "pilot_draws",
        _COUNT,
        "Draws that fixed directions and were thrown away.",
        unit="draws",
        source="theory 3",
    ),
    Column(
        "stop_reason",
        _TEXT,
        "fixed: the job's number of draws. decided: every target was decided. budget: some were not."
        + _OK_ONLY,
        nullable=True,
        values=("fixed", "decided", "budget"),
    ),
)

_BOUNDS = (
    Column(
        "smooth_norm",
        _NUMBER,
        "Mean of the draws along the pilot direction: an estimate of N from below." + _OK_ONLY,
        nullable=True,
        source="theory 1, N",
    ),
    Column(
        "smooth_norm_lcb",
        _NUMBER,
        "Lower confidence bound of N, the norm of the smoothed feature. NULL where it is not above 0.",
        nullable=True,
        source="theory 3",
    ),
    Column(
        "robustness_score",
        _NUMBER,
        "Estimate of the Gaussian robustness score S, in [0,1]." + _OK_ONLY,
        nullable=True,
        source="theory 1, S",
    ),
    Column(
        "robustness_score_lcb",
        _NUMBER,
        "Lower confidence bound of S. NULL where nothing is known.",
        nullable=True,
        source="theory 3",
    ),
    Column(
        "eigenvalue",
        _NUMBER,
        "Largest eigenvalue of the second moment of the draws' features about their pilot mean, of draws in a ball "
        "that the pilot fixed: how much they scatter in the direction in which they scatter most. NULL where it is not "
        "measured.",
        nullable=True,
        source="theory T7",
    ),
    *_evidence(),
    *_bounds(TO_CLEAN, TO_SMOOTHED),
)

_TEXTUAL = (
    Column(
        "caption_similarity",
        _NUMBER,
        "Estimate of the inner product of smoothed feature and caption feature: the unit vector along the "
        "mean of the features of all captions. NULL without text features.",
        nullable=True,
        source="theory T4",
    ),
    Column(
        "caption_similarity_lcb",
        _NUMBER,
        "Lower confidence bound of caption_similarity; may be negative. NULL where nothing is known.",
        nullable=True,
        source="theory 3",
    ),
    Column(
        "caption_alignment",
        _NUMBER,
        "Inner product of pilot direction and caption feature; caption_bound rests on it, on "
        "caption_similarity_lcb and on smooth_norm_lcb, the last two at half of alpha. NULL without text features.",
        nullable=True,
        source="theory T4, <v, t>",
    ),
    *_bounds(TO_CAPTION),
    Column(
        "clean_label",
        _TEXT,
        "Class that the encoder predicts without noise. NULL without a zero_shot section.",
        nullable=True,
    ),
    Column(
        "predicted_label",
        _TEXT,
        "Class that the smoothed encoder predicts, fixed by the pilot draws; certified_radius is about it. "
        "NULL without a zero_shot section.",
        nullable=True,
    ),
    Column(
        "class_margin",
        _NUMBER,
        "Estimate of the smallest margin over measured rivals: inner product with the unit vector from the "
        "rival's text feature to the predicted one's.",
        nullable=True,
        source="theory T4",
    ),
    Column(
        "class_margin_lcb",
        _NUMBER,
        "Lower confidence bound of the smallest margin over all rivals. NULL where nothing is known.",
        nullable=True,
        source="theory T4",
    ),
    Column(
        "class_rival",
        _TEXT,
        "The binding rival: the class with the smallest radius, which is certified_radius, or one against which "
        "nothing is certified. NULL where it is one of the classes that were not measured.",
        nullable=True,
        source="theory T4",
    ),
    Column(
        "class_rival_margin_lcb",
        _NUMBER,
        "Lower confidence bound of the margin over class_rival, at half of alpha; may be negative. NULL where "
        "the binding rival was not measured.",
        nullable=True,
        source="theory T4",
    ),
    Column(
        "class_rival_alignment",
        _NUMBER,
        "Inner product of the pilot direction and the unit vector from the predicted class's text feature to "
        "the binding rival's; the largest such product where that was not measured. certified_radius rests on "
        "it, on class_rival_margin_lcb and on smooth_norm_lcb at half of alpha. NULL without a zero_shot section.",
        nullable=True,
        source="theory T4, <v, w>",
    ),
    *_bounds(CLASS_MARGIN),
    Column(
        "vote_label",
        _TEXT,
        "Class that most pilot draws vote for; vote_radius is about it. NULL without a zero_shot section.",
        nullable=True,
        source="theory T9",
    ),
    *_share("vote_share", "draws that vote for vote_label: its text is nearer than any other's", "zero_shot"),
    *_bounds(CLASS_VOTES),
    Column(
        "retrieval_rank",
        _COUNT,
        "Rank of the own caption feature among the captions of the pool that are not the pair's own, by the "
        "pilot draws, 1 being nearest. NULL without a retrieval section.",
        nullable=True,
    ),
    Column(
        "retrieval_rival_margin_lcb",
        _NUMBER,
        "Lower confidence bound of the margin over the binding rival, the caption with the k-th smallest radius, "
        "at alpha/(2k); may be negative. NULL where that was not measured, or where there are fewer than k.",
        nullable=True,
        source="theory T4",
    ),
    Column(
        "retrieval_rival_alignment",
        _NUMBER,
        "As class_rival_alignment, for the own caption's feature and the binding rival's; retrieval_radius rests "
        "on it, on retrieval_rival_margin_lcb and on smooth_norm_lcb at alpha/(2k). NULL where there are fewer "
        "than k rivals.",
        nullable=True,
        source="theory T4, <v, w>",
    ),
    *_bounds(RANK_MARGIN),
    *_share(
        "retrieval_vote_share",
        "draws for which the own caption feature is among the first k of the pool",
        "retrieval",
    ),
    *_bounds(RANK_VOTES),
    *_bounds(*(each for each in quantities() if each not in _PLACED)),
)

_DECISIONS = (
    Column(
        "target_decision",
        _TEXTS,
        "certified, refuted or budget (undecided at the last draw), one per target of the job in its order. "
        "refuted ends work and claims nothing. NULL in quarantined rows.",
        nullable=True,
        values=("certified", "refuted", "budget"),
        source="theory 3",
    ),
    Column(
        "log_e_value",
        _NUMBERS,
        "Natural logarithm of an e-value against the hypothesis that the target does not hold, one per "
        "target of the job in its order. NULL in quarantined rows.",
        nullable=True,
        infinite=True,
        source="theory 3",
    ),
)

_PROVENANCE = (
    Column("encoder_digest", _TEXT, "SHA-256 of the encoder's weights, configuration and settings."),
    Column("seed", pa.int64(), "Root of the noise keys.", source="theory 4.3"),
    Column(
        "noise",
        _TEXT,
        "Name of the noise generator: of one key, generators of different names make different noise. One in all ok "
        "rows of a run.",
        source="theory 4.9",
    ),
    Column("device", _TEXT, "Kind of device that ran the encoder."),
    Column("dtype", _TEXT, "Arithmetic inside the encoder.", source="theory 4.6"),
)

CERTIFICATES = TableSchema(
    name="certificates",
    version=1,
    meaning="One pair of the input, exactly once: its certificates, or why it has none. Each certificate "
    "holds with probability at least 1 - alpha; bounds are rounded down; NULL: nothing is certified.",
    columns=(*_IDENTITY, *_QUESTION, *_BOUNDS, *_TEXTUAL, *_DECISIONS, *_PROVENANCE),
)
