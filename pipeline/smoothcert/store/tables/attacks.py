"""The published table ``attacks`` and the meaning of every column."""

from __future__ import annotations

import pyarrow as pa

from smoothcert.catalogue.attacks import NORMS
from smoothcert.store.tables.columns import Column, TableSchema
from smoothcert.store.tables.shared_columns import origin_columns, status_columns

_TEXT = pa.string()
_NUMBER = pa.float64()
_COUNT = pa.int32()
_FLAG = pa.bool_()
_TEXTS = pa.list_(pa.field("element", pa.string()))
_PIXELS = "[0,1] pixels"
_FRESH = "theory 5"

_IDENTITY = (
    *origin_columns("The pair, as in certificates. One row per pair, attack_id, subject and budget."),
    Column("label", _TEXT, "The class name given by the data; NULL where there is none.", nullable=True),
    *status_columns(
        "ok: attacked and judged. quarantined: nothing is known; the pair still counts as asked for.",
        "read, decode, caption, label, encode or worker",
    ),
)

_QUESTION = (
    Column("attack", _TEXT, "Name of the attack."),
    Column("attack_id", _TEXT, "Names attack and settings together: rows with the same one are comparable."),
    Column("settings", _TEXT, "The attack's section of the job, as JSON."),
    Column("norm", _TEXT, "Norm of the budget.", values=NORMS),
    Column("budget", _NUMBER, "Largest norm allowed.", unit=_PIXELS),
    Column("objective", _TEXT, "What the attack wanted."),
    Column(
        "reference",
        _TEXT,
        "What the objective leaves. divergence: clean (the feature without noise) or smoothed (the subject's own of "
        "the clean image). classification: label, or predicted (the subject's own class of the clean image). NULL "
        "where there is no choice.",
        nullable=True,
    ),
    Column("target", _TEXT, "What it was pushed towards; NULL where there is no target.", nullable=True),
    Column("target_digest", _TEXT, "SHA-256 of the target image; NULL where there is none.", nullable=True),
    Column(
        "surrogates",
        _TEXTS,
        "Encoders that the search saw in place of the subject's own, by name and head of their digest: the outcome "
        "is one of transfer. NULL where there are none.",
        nullable=True,
    ),
    Column(
        "threshold", _NUMBER, "Cosine below which it has succeeded; NULL where there is none.", nullable=True
    ),
    Column(
        "subject",
        _TEXT,
        "bare: the encoder as it is. smoothed: its mean under noise. Else the name of a defence: the mean under noise "
        "of the model behind it.",
    ),
    Column("sigma", _NUMBER, "Deviation of the subject's noise; 0 for none.", unit=_PIXELS),
)

_SEARCH = (
    Column("steps", _COUNT, "Queries of the subject while searching; fewer where the pair left early."),
    Column("restarts", _COUNT, "Starts made."),
    Column(
        "eot_draws", _COUNT, "Noise draws behind one query; 1 without noise.", unit="draws", source=_FRESH
    ),
    Column("queries", pa.int64(), "Images put through the encoder while searching, draws counted singly."),
    Column(
        "perturbation_l2",
        _NUMBER,
        "l2 norm of what was added; NULL in quarantined rows.",
        nullable=True,
        unit=_PIXELS,
    ),
    Column(
        "perturbation_linf",
        _NUMBER,
        "Largest change of a pixel; NULL in quarantined rows.",
        nullable=True,
        unit=_PIXELS,
    ),
    Column(
        "distance",
        _NUMBER,
        "Smallest norm at which the search saw success, even beyond the budget; NULL where it saw none or the "
        "attack does not look for it.",
        nullable=True,
        unit=_PIXELS,
    ),
    Column(
        "elapsed_s",
        _NUMBER,
        "This pair's share of the time of searching; NULL in quarantined rows.",
        nullable=True,
        unit="s",
    ),
)


def _interval(name: str, meaning: str) -> tuple[Column, ...]:
    tail = " NULL where it is not known."
    return (
        Column(name, _NUMBER, meaning + tail, nullable=True, unit="cosine", source=_FRESH),
        Column(
            f"{name}_lcb",
            _NUMBER,
            f"Lower confidence bound of {name}, at alpha; equal to it without noise. NULL where it is not known.",
            nullable=True,
            unit="cosine",
            source=_FRESH,
        ),
        Column(
            f"{name}_ucb",
            _NUMBER,
            f"Upper confidence bound of {name}, at alpha; equal to it without noise. NULL where it is not known.",
            nullable=True,
            unit="cosine",
            source=_FRESH,
        ),
    )


def _upper(name: str, meaning: str, source: str = "theory T4") -> tuple[Column, ...]:
    return (
        Column(name, _NUMBER, f"{meaning} NULL where it is not known.", nullable=True, source=source),
        Column(
            f"{name}_ucb",
            _NUMBER,
            f"Upper confidence bound of {name}, at alpha; equal to it without noise. NULL where it is not known.",
            nullable=True,
            source=_FRESH,
        ),
    )


_OUTCOME = (
    Column("evaluate_draws", _COUNT, "Fresh draws that judged the outcome; 1 without noise.", unit="draws"),
    Column("alpha", _NUMBER, "Failure probability of each confidence bound of this row."),
    *_interval(
        "clean_cosine", "Cosine between the subject's feature of the clean image and the clean feature."
    ),
    *_interval(
        "cosine_to_clean", "Cosine between the subject's feature under attack and the clean feature u(x)."
    ),
    *_interval(
        "cosine_to_smoothed",
        "Cosine between the subject's feature under attack and its own feature of the clean image.",
    ),
    Column(
        "clean_label",
        _TEXT,
        "Class that the subject predicts without attack. NULL without a zero_shot section.",
        nullable=True,
    ),
    Column(
        "attacked_label",
        _TEXT,
        "Class that the subject predicts under attack. NULL without a zero_shot section.",
        nullable=True,
    ),
    Column(
        "class_margin_label",
        _TEXT,
        "Class that class_margin is about: that of the subject's certificate, else clean_label. NULL without a "
        "zero_shot section.",
        nullable=True,
    ),
    *_upper(
        "class_margin",
        "Smallest inner product of the feature under attack with the unit vectors from a rival's text feature to "
        "that class's; negative: another class wins.",
    ),
    *_upper("caption_similarity", "Inner product of the feature under attack and the caption's."),
    *_upper(
        "retrieval_margin",
        "The margin of the own caption against the k-th nearest other one; negative: it is not among the first k.",
    ),
    Column(
        "attacked_vote",
        _TEXT,
        "Class that most fresh draws vote for under attack. NULL without a zero_shot section.",
        nullable=True,
        source="theory T9",
    ),
    Column(
        "vote_share_label",
        _TEXT,
        "Class that vote_share and class_percentile are about: that of the certificate of the vote, else the one that "
        "most draws vote for without attack. NULL without a zero_shot section.",
        nullable=True,
        source="theory T9",
    ),
    *_upper(
        "vote_share",
        "Share of the draws under attack that are nearer to that class's text than to any other; at most one half: "
        "the vote may be lost.",
        "theory T9",
    ),
    *_upper(
        "retrieval_vote_share",
        "Share of the draws under attack for which the own caption is among the first k.",
        "theory T9",
    ),
    *_upper(
        "clean_percentile",
        "The job's percentile, by default the median, of a draw's cosine to the clean feature under attack.",
        "theory T9",
    ),
    *_upper("caption_percentile", "The same of its inner product with the caption's feature.", "theory T9"),
    *_upper(
        "class_percentile",
        "The same of its smallest margin of vote_share_label over the other classes.",
        "theory T9",
    ),
    Column(
        "clean_margin",
        _NUMBER,
        "margin of the clean image, on fresh draws: negative where the objective is reached without any attack; such a "
        "pair is wrong before and counts for no attack. NULL in quarantined rows.",
        nullable=True,
    ),
    Column(
        "margin",
        _NUMBER,
        "Distance to success on fresh draws; negative: success. NULL in quarantined rows.",
        nullable=True,
    ),
    Column(
        "success", _FLAG, "Whether the objective was reached on fresh draws. NULL in quarantined rows.", True
    ),
)

_CERTIFIED = (
    Column(
        "certified_to_clean",
        _NUMBER,
        "Certified lower bound of cosine_to_clean at the budget, from the row of certificates. NULL where nothing "
        "is certified: always under l-infinity, and where encoder or noise are not those of the certificate.",
        nullable=True,
        unit="cosine",
        source="theory T2, T5, T6",
    ),
    Column(
        "certified_to_smoothed",
        _NUMBER,
        "Certified lower bound of cosine_to_smoothed at the budget; NULL as certified_to_clean.",
        nullable=True,
        unit="cosine",
        source="theory T3",
    ),
    Column(
        "certified_cosine",
        _NUMBER,
        "The larger of the two: what is certified at the budget against either reference; NULL as these.",
        nullable=True,
        unit="cosine",
    ),
    Column(
        "violation",
        _FLAG,
        "Whether an upper confidence bound is below the certified bound of the same cosine: a bug in smoothcert, "
        "unless alpha allows it. NULL where nothing is certified.",
        nullable=True,
        source=_FRESH,
    ),
)

_PROVENANCE = (
    Column(
        "input_height",
        _COUNT,
        "Height of the image the encoder sees, where norms are measured.",
        unit="pixels",
    ),
    Column(
        "input_width", _COUNT, "Width of the image the encoder sees, where norms are measured.", unit="pixels"
    ),
    Column(
        "encoder_digest",
        _TEXT,
        "SHA-256 of the subject's encoder: weights, configuration, settings and defence.",
    ),
    Column(
        "seed", pa.int64(), "Root of the noise keys of the streams attack and evaluate.", source="theory 4.3"
    ),
    Column(
        "certify_seed", pa.int64(), "Root of the noise keys of the streams that certify.", source="theory 4.3"
    ),
    Column("device", _TEXT, "Kind of device that ran the encoder."),
    Column("dtype", _TEXT, "Arithmetic inside the encoder.", source="theory 4.6"),
)

ATTACKS = TableSchema(
    name="attacks",
    version=1,
    meaning="One attack on one pair, on one subject, at one budget: what it achieved on draws that it never saw. "
    "Every pair asked for has its row; nothing here is a certificate.",
    columns=(*_IDENTITY, *_QUESTION, *_SEARCH, *_OUTCOME, *_CERTIFIED, *_PROVENANCE),
    key=("pair_id", "attack_id", "subject", "budget"),
)
