"""From answers to rows of the table ``answers``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smoothcert.answerers.base import TextAnswer
from smoothcert.answerers.metrics import METRICS
from smoothcert.catalogue.answers import ANSWER_CERTIFICATES
from smoothcert.datasets import Pair
from smoothcert.datasets.image_question import ImageQuestion
from smoothcert.engine.noise import generator_name
from smoothcert.engine.pair_row import failure_fields, pair_fields
from smoothcert.errors import PairError
from smoothcert.job import Job
from smoothcert.job.answer import AnswerSection
from smoothcert.work.answer.inputs import AnswerInputs
from smoothcert.work.answer.question_row import QuestionRow, model_fields, question_fields
from smoothcert.work.answer.vote import RIGHT, VoteResult


@dataclass(frozen=True, kw_only=True)
class AnswerRow(QuestionRow):
    """One question to one pair and subject. Columns are documented in ``schemas/``."""

    prompt: str | None = None
    complete: bool | None = None
    refused: bool | None = None
    tokens: int = 0
    exact_match: float | None = None
    contained_match: float | None = None
    vqa_accuracy: float | None = None
    rouge_l: float | None = None
    keyword_share: float | None = None
    wording: str | None = None
    clip_score: float | None = None
    judged_similarity: float | None = None
    clip_model: str | None = None
    clip_digest: str | None = None
    judge: str | None = None
    judge_digest: str | None = None
    judge_threshold: float | None = None
    judge_reply: str | None = None
    pilot_draws: int = 0
    votes: int | None = None
    vote_classes: str | None = None
    vote_share_lcb: float | None = None
    decision: str | None = None
    method: str | None = None
    score_metric: str | None = None
    score: float | None = None
    score_lcb: float | None = None
    score_bounds: tuple[float | None, ...] | None = None
    score_draws: tuple[float, ...] | None = None
    score_percentile: float | None = None
    score_quantile_lcb: tuple[float, ...] | None = None
    score_percentile_bounds: tuple[float | None, ...] | None = None
    alpha: float | None = None
    temperature: float
    certify_seed: int
    input_height: int
    input_width: int
    generator: str

    @property
    def passes(self) -> int:
        """Answers behind it."""
        return self.pilot_draws + self.draws if self.subject == "vote" else 1


class AnswerRowMaker:
    """Rows of one section of a job.

    Args:
        job: the job.
        section: its section ``answer``.
        named: what answers, and the questions.
    """

    def __init__(self, job: Job, section: AnswerSection, named: AnswerInputs) -> None:
        answerer = named.answerer
        self._section, self._answerer, self._sigma = section, answerer, job.certify.sigma
        self._radii, self._percentile = job.certify.radii, job.certify.percentile
        self._alpha = section.alpha if section.alpha is not None else job.certify.alpha
        self._fixed: dict[str, Any] = {
            "answer_id": section.answer_id,
            "temperature": section.temperature,
            "seed": section.seed,
            "certify_seed": job.certify.seed,
            "input_height": answerer.input_size[0],
            "input_width": answerer.input_size[1],
            "generator": generator_name(answerer.device),
        }
        self._models: dict[str, dict[str, Any]] = {
            name: model_fields(named.of(name), named.questions.digest) for name in section.subjects
        }

    def answered(self, pair: Pair, question: ImageQuestion, subject: str, answer: TextAnswer) -> AnswerRow:
        """The row of one answer, to the bare image or to smoothed tokens."""
        smoothed = subject in ("smoothed", "defended")
        return self._row(
            pair,
            question,
            subject,
            answer=answer.text,
            complete=answer.complete,
            refused=answer.refused,
            tokens=answer.tokens,
            sigma=self._sigma if smoothed else 0.0,
            draws=self._section.smooth_draws if smoothed else 0,
            **_judge(question.meant(answer.text), question.answers),
        )

    def voted(self, pair: Pair, question: ImageQuestion, result: VoteResult, tokens: int) -> AnswerRow:
        """The row of a vote."""
        return self._row(
            pair,
            question,
            "vote",
            answer=result.answer,
            wording=result.wording,
            tokens=tokens,
            sigma=self._sigma,
            pilot_draws=self._section.vote.pilot_draws,
            draws=result.draws,
            votes=result.votes,
            vote_classes=self._section.vote.classes,
            vote_share_lcb=result.share_lcb,
            vote_radius=result.radius,
            decision=result.decision,
            method=result.method,
            alpha=self._alpha,
            **self._scored(result),
            **self._judge_vote(result, question.answers),
        )

    def quarantined(self, pair: Pair, error: PairError) -> list[AnswerRow]:
        """The rows of a pair that cannot be answered: one for each subject."""
        return [
            AnswerRow(subject=subject, **failure_fields(pair, error), **self._fixed, **self._models[subject])
            for subject in self._section.subjects
        ]

    def _row(self, pair: Pair, question: ImageQuestion, subject: str, **fields: Any) -> AnswerRow:
        return AnswerRow(
            subject=subject,
            prompt=self._answerer.prompt(question.question),
            **pair_fields(pair),
            **question_fields(question),
            **self._fixed,
            **self._models[subject],
            **fields,
        )

    def _judge_vote(self, result: VoteResult, references: Sequence[str]) -> dict[str, Any]:
        if result.answer is None or not references:
            return {}
        if self._section.vote.classes == "right":
            return {"contained_match": float(result.answer == RIGHT)}
        return _judge(result.wording or result.answer, references)

    def _scored(self, result: VoteResult) -> dict[str, Any]:
        """What the draws' scores prove: bounds at the job's radii, each None where nothing is certified."""
        if result.scores is None:
            return {}
        percentile, scores = self._percentile, np.asarray(result.scores)
        fields: dict[str, Any] = {
            "score_metric": self._section.vote.score,
            "score": result.score,
            "score_lcb": result.score_lcb,
            "score_draws": result.scores,
            "score_percentile": None
            if percentile is None
            else float(np.quantile(scores, percentile, method="inverted_cdf")),
            "score_quantile_lcb": result.score_quantiles,
        }
        radii = np.asarray(self._radii, dtype=np.float64)
        for certificate in ANSWER_CERTIFICATES:
            basis = [fields.get(each.column) for each in certificate.basis]
            if certificate.bound is not None and None not in basis:
                bounds = certificate.bound.function(*basis, radii, self._sigma)
                fields[certificate.bound.column] = tuple(
                    None if np.isnan(bound) else float(bound) for bound in bounds
                )
        return fields


def _judge(text: str, references: Sequence[str]) -> dict[str, Any]:
    """What the metrics say of an answer; nothing without references."""
    return {name: float(metric(text, references)) for name, metric in METRICS.items()} if references else {}
