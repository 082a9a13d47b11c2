"""The sections ``zero_shot`` and ``retrieval`` of a job: the texts that features are compared with."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from smoothcert.job.section import PositiveInt, Section


class ZeroShotSection(Section):
    """Zero-shot classification: class names and prompt templates."""

    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    prompts: Annotated[tuple[str, ...], Field(min_length=1)] = ("a photo of a {label}",)
    """Templates with {label}; the class feature is the normalised mean over the templates."""

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        doubled = (
            sorted({label for label in labels if labels.count(label) > 1})
            if len(set(labels)) < len(labels)
            else []
        )
        if doubled:
            raise ValueError(f"labels listed more than once: {doubled}; keep one of each")
        return labels

    @field_validator("prompts")
    @classmethod
    def _has_placeholder(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        for prompt in prompts:
            if "{label}" not in prompt:
                raise ValueError(f"prompt '{prompt}' lacks the placeholder {{label}}")
        return prompts


class RetrievalSection(Section):
    """Text retrieval: the true caption against a fixed pool of captions from the same source."""

    candidates: Annotated[int, Field(ge=2)] = 1000
    k: PositiveInt = 1

    @model_validator(mode="after")
    def _k_below_pool(self) -> RetrievalSection:
        if self.k >= self.candidates:
            raise ValueError(f"k={self.k} must be below candidates={self.candidates}")
        return self
