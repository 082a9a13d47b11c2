"""What rows about a question have alike, whether it was asked about a clean image or one under attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from smoothcert.answerers.base import Answerer
from smoothcert.datasets.image_question import ImageQuestion
from smoothcert.engine.pair_row import PairRow


@dataclass(frozen=True, kw_only=True)
class QuestionRow(PairRow):
    """Question, subject and model of a row. Columns are documented in ``schemas/``."""

    answer_id: str
    question_id: str = ""
    kind: str | None = None
    question: str | None = None
    subject: str
    answer: str | None = None
    reference_answers: tuple[str, ...] | None = None
    sigma: float = 0.0
    draws: int = 0
    vote_radius: float | None = None
    model: str
    model_digest: str
    template_digest: str
    questions_digest: str
    seed: int
    device: str
    dtype: str


def question_fields(question: ImageQuestion) -> dict[str, Any]:
    """The fields of a ``QuestionRow`` that are the question's."""
    return {
        "question_id": question.question_id,
        "kind": question.kind,
        "question": question.question,
        "reference_answers": question.answers,
    }


def model_fields(answerer: Answerer, questions_digest: str) -> dict[str, Any]:
    """The fields of a ``QuestionRow`` that are the model's and its questions' file's."""
    return {
        "model": answerer.name,
        "model_digest": answerer.digest,
        "template_digest": answerer.template_digest,
        "questions_digest": questions_digest,
        "device": answerer.device.type,
        "dtype": answerer.dtype,
    }
