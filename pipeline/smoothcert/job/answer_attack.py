"""Attacks on answers, in the section ``answer`` of a job: how images are perturbed, and what the model is to say."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from smoothcert.job.attacks import AttackSection, ObjectiveName, known_name, one_or_several

SubjectName = Literal["bare", "smoothed", "defended", "vote"]
AnswerObjectiveName = Literal["answer", "target_answer", "divergence", "matching"]
ON_FEATURES: tuple[ObjectiveName, ...] = ("divergence", "matching")
"""Objectives about the job's encoder: what the model then says is looked at afterwards."""


class AnswerAttackSection(AttackSection):
    """One attack on the answers, at one or more budgets. The same questions serve every subject."""

    objective: Annotated[
        AnswerObjectiveName,
        known_name("objective", AnswerObjectiveName),
    ] = "answer"  # type: ignore[assignment]  # other goals than those of features
    """answer: the model says something else than without attack. target_answer: it says target_answer. Both by the
    cross-entropy of the words (white box). divergence, matching: the feature of the job's encoder is moved, as in
    attacks, and the model is asked about the image that comes of it."""
    subjects: Annotated[tuple[SubjectName, ...], BeforeValidator(one_or_several), Field(min_length=1)] = (
        "bare",
        "smoothed",
    )
    """bare, smoothed, defended and vote, as in answer.subjects. Searching averages over eot_draws noisy images."""
    target_answer: str | None = None
    """For target_answer: what the model is to say."""
    evaluate_draws: Annotated[int, Field(ge=8)] = 100
    """Fresh noisy images that judge a vote under attack; a draw is a generation. Smoothed tokens are judged with
    answer.smooth_draws."""

    @model_validator(mode="after")
    def _answers_have_what_they_need(self) -> AnswerAttackSection:
        if (self.objective == "target_answer") != (self.target_answer is not None):
            raise ValueError(
                "objective 'target_answer' and the field target_answer belong together: give both or neither"
            )
        if self.target_answer is not None and not self.target_answer.strip():
            raise ValueError("target_answer is empty; write what the model is to say")
        if self.keep:
            raise ValueError("keep is not known for attacks on answers; remove it")
        if self.reference is not None:
            raise ValueError("reference is not known for attacks on answers; remove it")
        if self.surrogates and self.objective not in ON_FEATURES:
            raise ValueError(
                f"objective '{self.objective}' searches the model itself; for surrogates use one of "
                f"{', '.join(ON_FEATURES)}"
            )
        return self

    @property
    def defences(self) -> tuple[str, ...]:
        """No subject here is a defence."""
        return ()

    def on_features(self) -> AttackSection:
        """The same attack on the encoder's features alone."""
        fields = {name: getattr(self, name) for name in AttackSection.model_fields}
        return AttackSection.model_construct(**{**fields, "subjects": ("bare",)})
