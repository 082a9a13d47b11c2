"""The published table ``answers`` and the meaning of every column."""

from __future__ import annotations

import pyarrow as pa

from smoothcert.catalogue.answer_metrics import IN_TABLE, AnswerMetric
from smoothcert.catalogue.answers import ANSWER_CERTIFICATES
from smoothcert.store.tables.columns import Column, TableSchema
from smoothcert.store.tables.shared_columns import model_columns, origin_columns, status_columns

_TEXTS, _NUMBERS = pa.list_(pa.string()), pa.list_(pa.float64())


def _metric(name: str, metric: AnswerMetric) -> Column:
    without = f" or answer.{metric.needs}" if metric.needs else ""
    return Column(
        name,
        pa.float64(),
        f"{metric.meaning} In [0, 1]; NULL without reference answers{without}.",
        nullable=True,
    )


_MODELS_OF_METRICS = (
    Column("clip_model", pa.string(), "The encoder of clip_score. NULL without.", nullable=True),
    Column("clip_digest", pa.string(), "Digest of that encoder. NULL without.", nullable=True),
    Column("judge", pa.string(), "The judge of judged_similarity. NULL without.", nullable=True),
    Column(
        "judge_digest", pa.string(), "Digest of that judge, its prompt included. NULL without.", nullable=True
    ),
    Column(
        "judge_threshold",
        pa.float64(),
        "judged_similarity from which on the answer counts as a match. NULL without a judge.",
        nullable=True,
    ),
    Column(
        "judge_reply",
        pa.string(),
        "What a judge behind an endpoint said, its first 200 letters; where it is no number in [0, 1], "
        "judged_similarity is NULL. NULL of other judges.",
        nullable=True,
    ),
)


def _certified(name: str) -> Column:
    """What an entry of the catalogue claims."""
    found = {form.column: (each, form) for each in ANSWER_CERTIFICATES for form in each.forms}
    certificate, form = found[name]
    alone = form is certificate.radius
    return Column(
        name,
        pa.float64() if alone else _NUMBERS,
        form.meaning,
        nullable=True,
        unit="[0,1] pixels" if alone else "",
        source=certificate.source.partition(",")[0],
    )


def _evidence(name: str) -> Column:
    """What an entry of the catalogue rests on."""
    found = {each.column: each for certificate in ANSWER_CERTIFICATES for each in certificate.basis}
    each = found[name]
    return Column(
        name, _NUMBERS if each.listed else pa.float64(), each.meaning, nullable=True, source=each.source
    )


ANSWERS = TableSchema(
    name="answers",
    version=1,
    meaning="What a multimodal model answers to one question about one image, and what of it is certified.",
    key=("pair_id", "answer_id", "question_id", "subject"),
    columns=(
        *origin_columns("The pair, as in certificates. One row for each of its questions and each subject."),
        *status_columns(
            "ok: answered. quarantined: nothing is known.",
            "read, decode, caption, question, encode or worker",
        ),
        Column("answer_id", pa.string(), "The section 'answer' of the job, by its content."),
        Column("question_id", pa.string(), "The question; empty in the one row of a pair without questions."),
        Column(
            "kind",
            pa.string(),
            "Kind of question, as its file has it. NULL where it has none.",
            nullable=True,
        ),
        Column("question", pa.string(), "The question. NULL in quarantined rows.", nullable=True),
        Column(
            "subject",
            pa.string(),
            "bare: the image as it is. smoothed: image tokens averaged over noisy images. defended: the same "
            "of purified noisy images. vote: the answer that most noisy images get.",
            values=("bare", "smoothed", "defended", "vote"),
        ),
        Column(
            "prompt",
            pa.string(),
            "The text that the model was given, one slot for the image. NULL in quarantined rows.",
            nullable=True,
        ),
        Column(
            "answer",
            pa.string(),
            "The answer; of vote the class that is certified. NULL in quarantined rows.",
            nullable=True,
        ),
        Column(
            "complete",
            pa.bool_(),
            "Whether the answer came to its own end; false: cut at max_new_tokens. NULL of votes and quarantined rows.",
            nullable=True,
        ),
        Column(
            "refused",
            pa.bool_(),
            "Whether the model declined to answer. NULL of votes and in quarantined rows.",
            nullable=True,
        ),
        Column("tokens", pa.int64(), "Tokens of all answers behind the row.", unit="tokens"),
        Column(
            "reference_answers",
            _TEXTS,
            "What people answered; empty where nobody did. NULL in quarantined rows.",
            nullable=True,
        ),
        Column(
            "wording",
            pa.string(),
            "Of vote: how the first pilot draw of that answer put it, which the metrics are about. NULL of other "
            "subjects, or where nobody voted.",
            nullable=True,
        ),
        *(_metric(name, metric) for name, metric in IN_TABLE.items()),
        *_MODELS_OF_METRICS,
        Column("sigma", pa.float64(), "Noise behind the row, 0 for bare.", unit="[0,1] pixels"),
        Column("pilot_draws", pa.int32(), "Draws that chose the class; discarded.", unit="draws"),
        Column("draws", pa.int32(), "Noisy images behind the row.", unit="draws"),
        Column(
            "votes",
            pa.int32(),
            "Of vote: draws answered with the class. NULL of other subjects, or where nobody voted.",
            nullable=True,
            unit="draws",
        ),
        Column(
            "vote_classes",
            pa.string(),
            "Of vote: what counts as the same answer. text: the same words after VQA normalisation. right: whether the "
            "answer holds a reference. NULL of other subjects.",
            nullable=True,
            values=("text", "right"),
        ),
        Column(
            "vote_share_lcb",
            pa.float64(),
            "Of vote: lower bound of the probability that a noisy image is answered with it. NULL of other subjects.",
            nullable=True,
            source="theory T9",
        ),
        _certified("vote_radius"),
        Column(
            "decision",
            pa.string(),
            "Of vote with a radius: certified there, refuted (given up), or budget (neither within max_draws). NULL "
            "without.",
            nullable=True,
            values=("certified", "refuted", "budget"),
        ),
        Column(
            "method",
            pa.string(),
            "Of vote: the confidence bound. NULL of other subjects.",
            nullable=True,
            values=("betting", "clopper_pearson"),
        ),
        Column(
            "score_metric",
            pa.string(),
            "Of vote: the metric whose mean is certified. NULL without one, or without reference answers.",
            nullable=True,
        ),
        Column("score", pa.float64(), "Mean of score_metric over the draws. NULL without.", nullable=True),
        _evidence("score_lcb"),
        _certified("score_bounds"),
        Column(
            "score_draws",
            _NUMBERS,
            "score_metric of each draw, in order: all that is certified of scores follows from it. NULL without.",
            nullable=True,
        ),
        Column(
            "score_percentile",
            pa.float64(),
            "The job's percentile, by default the median, of score_draws. NULL without.",
            nullable=True,
        ),
        _evidence("score_quantile_lcb"),
        _certified("score_percentile_bounds"),
        Column(
            "alpha",
            pa.float64(),
            "Failure probability of vote_share_lcb, of score_lcb, and of each of score_quantile_lcb, each by itself. "
            "NULL of other subjects.",
            nullable=True,
        ),
        *model_columns(),
        Column("temperature", pa.float64(), "0: greedy answers."),
        Column("seed", pa.int64(), "Root of the seeds of sampled answers."),
        Column("certify_seed", pa.int64(), "Root of the noise."),
        Column("input_height", pa.int32(), "Height of x.", unit="pixels"),
        Column("input_width", pa.int32(), "Width of x.", unit="pixels"),
        Column("generator", pa.string(), "What made the noise."),
    ),
)
