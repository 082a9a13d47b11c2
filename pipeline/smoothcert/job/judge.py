"""The part ``judge`` of a job's section ``answer``: who says how alike in meaning an answer is to its references."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from smoothcert.job.encoder import EncoderSection
from smoothcert.job.section import PositiveInt, Section

JUDGE_PROMPT = (
    "Question: {question}\nReference answers: {references}\nAnswer: {answer}\n"
    "How alike in meaning is the answer to the references, from 0 (not at all) to 1 (the same)? "
    "Reply with the number alone."
)
"""What a judge behind an endpoint is asked by default."""
_SLOTS = ("{question}", "{references}", "{answer}")


class JudgeSection(Section):
    """A local encoder, or a service that is asked for a number; judge, prompt and threshold stand in the run."""

    encoder: EncoderSection | None = None
    """Judges by the cosine of its text features, 0 where negative; the best reference counts."""
    endpoint: str | None = None
    """Base URL of an OpenAI-compatible service that judges instead, e.g. https://api.openai.com/v1."""
    model: str | None = None
    """The name that the endpoint knows."""
    prompt: str = JUDGE_PROMPT
    """What the endpoint is asked, with {answer} and perhaps {question} and {references}. Its reply must be a number in
    [0, 1], alone or as {"score": number}."""
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.5
    """judged_match: a similarity of at least this."""
    max_new_tokens: PositiveInt = 16
    """Longest reply of the endpoint."""
    key_variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "SMOOTHCERT_JUDGE_KEY"
    """Environment variable that holds the endpoint's key; the key itself is never written anywhere."""
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """How long one request to the endpoint may take."""
    retries: Annotated[int, Field(ge=0, le=20)] = 5
    """As answer.retries."""
    parallel: Annotated[int, Field(ge=1, le=256)] = 4
    """As answer.parallel."""

    @model_validator(mode="after")
    def _one_judge(self) -> JudgeSection:
        if (self.encoder is None) == (self.endpoint is None):
            raise ValueError("judge needs either encoder (a local one) or endpoint (a service)")
        if (self.endpoint is None) != (self.model is None):
            raise ValueError("judge.model is the name that judge.endpoint knows: give both or neither")
        if self.endpoint is not None and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError(f"judge.endpoint='{self.endpoint}' is not an http(s) URL")
        if "{answer}" not in self.prompt:
            raise ValueError(f"judge.prompt has no {{answer}}; it may have {', '.join(_SLOTS)}")
        if self.encoder is not None and self.prompt != JUDGE_PROMPT:
            raise ValueError("judge.prompt is for judge.endpoint; an encoder is asked nothing, remove it")
        return self
