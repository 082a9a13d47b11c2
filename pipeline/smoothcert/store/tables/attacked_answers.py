"""The published table ``attacked_answers`` and the meaning of every column."""

from __future__ import annotations

import pyarrow as pa

from smoothcert.store.tables.columns import Column, TableSchema
from smoothcert.store.tables.shared_columns import model_columns, origin_columns, status_columns

_QUARANTINED = "NULL in quarantined rows."


def _text(name: str, meaning: str) -> Column:
    return Column(name, pa.string(), f"{meaning} {_QUARANTINED}", nullable=True)


ATTACKED_ANSWERS = TableSchema(
    name="attacked_answers",
    version=1,
    meaning="What a multimodal model answers to one question about one image under one attack.",
    key=("pair_id", "attack_id", "question_id", "subject", "budget"),
    columns=(
        *origin_columns(
            "The pair, as in certificates. One row for each of its questions, each subject and budget."
        ),
        *status_columns(
            "ok: attacked and answered. quarantined: nothing is known.",
            "read, decode, caption, question, encode or worker",
        ),
        Column("attack_id", pa.string(), "The attack and the questions, by their content."),
        Column("answer_id", pa.string(), "The section 'answer' of the job, as in answers."),
        Column("attack", pa.string(), "How was searched."),
        Column("norm", pa.string(), "Of the budget.", values=("l2", "linf")),
        Column("budget", pa.float64(), "Largest norm of the perturbation.", unit="[0,1] pixels"),
        Column(
            "objective",
            pa.string(),
            "What was searched for: another answer, target_answer, or another feature of the job's encoder.",
            values=("answer", "target_answer", "divergence", "matching"),
        ),
        Column(
            "target_answer",
            pa.string(),
            "What the model was to say. NULL without such a goal.",
            nullable=True,
        ),
        Column(
            "subject",
            pa.string(),
            "As in answers: what was searched and what answers.",
            values=("bare", "smoothed", "defended", "vote"),
        ),
        Column("question_id", pa.string(), "The question; empty in quarantined rows of a whole pair."),
        Column("kind", pa.string(), "Kind of question. NULL where it has none.", nullable=True),
        _text("question", "The question."),
        Column(
            "reference_answers",
            pa.list_(pa.string()),
            f"What people answered; empty where nobody did. {_QUARANTINED}",
            nullable=True,
        ),
        _text("clean_answer", "The subject's answer without attack, on noise of its own."),
        _text("answer", "Its answer under attack; of vote the class that most noisy images get."),
        Column(
            "changed",
            pa.bool_(),
            f"Whether they differ after VQA normalisation. {_QUARANTINED}",
            nullable=True,
        ),
        Column(
            "clean_right",
            pa.bool_(),
            "Whether the clean answer holds a reference, after VQA normalisation. NULL without references.",
            nullable=True,
        ),
        Column(
            "right",
            pa.bool_(),
            "Whether the answer under attack holds a reference. NULL without references.",
            nullable=True,
        ),
        Column(
            "success",
            pa.bool_(),
            "What ASR counts: of target_answer, whether that is said; else whether a right answer became wrong, or, "
            f"without references, whether it changed. NULL where the clean answer was wrong already. {_QUARANTINED}",
            nullable=True,
        ),
        Column(
            "perturbation_l2",
            pa.float64(),
            f"l2 norm of x' - x. {_QUARANTINED}",
            nullable=True,
            unit="[0,1] pixels",
        ),
        Column(
            "perturbation_linf",
            pa.float64(),
            f"Largest change. {_QUARANTINED}",
            nullable=True,
            unit="[0,1] pixels",
        ),
        Column("queries", pa.int64(), "Images that the search took.", unit="images"),
        Column("sigma", pa.float64(), "Noise behind the answers, 0 for bare.", unit="[0,1] pixels"),
        Column("eot_draws", pa.int32(), "Noisy images behind one gradient.", unit="draws"),
        Column("draws", pa.int32(), "Noisy images behind each of the two answers; 1 of bare.", unit="draws"),
        Column(
            "vote_radius",
            pa.float64(),
            "Of vote: radius that answers certifies for this question. NULL: nothing is.",
            nullable=True,
            unit="[0,1] pixels",
            source="theory T9",
        ),
        Column(
            "certified_share_ucb",
            pa.float64(),
            "Of vote: upper bound of the probability of the certified class at x'. NULL where nothing is certified.",
            nullable=True,
        ),
        Column(
            "violation",
            pa.bool_(),
            "Whether this outcome contradicts the certificate: x' is within vote_radius in l2, and yet the certified "
            "class has less than half of the votes there. NULL where nothing is certified that far.",
            nullable=True,
        ),
        Column("alpha", pa.float64(), "Failure probability of certified_share_ucb."),
        *model_columns(),
        Column("seed", pa.int64(), "Root of the noise of searching and judging."),
    ),
)
