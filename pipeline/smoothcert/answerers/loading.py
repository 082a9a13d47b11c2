"""From a job's section ``answer`` to an answerer that is ready."""

from __future__ import annotations

from typing import Any

from smoothcert.answerers.base import Answerer
from smoothcert.answerers.pretrained import PretrainedAnswerer
from smoothcert.answerers.prompts import chat_template
from smoothcert.encoders.base import Encoder
from smoothcert.encoders.loading import load_tokenizer, load_tower
from smoothcert.errors import EncoderError, JobError
from smoothcert.job import EncoderSection
from smoothcert.job.answer import AnswerSection


def load_answerer(
    section: AnswerSection, encoder: EncoderSection, certified: Encoder | None = None
) -> Answerer:
    """The answerer that a job names, on the device of its encoder.

    Args:
        section: of the job.
        encoder: of the job: where it computes.
        certified: the job's encoder, whose x an endpoint is sent.

    Raises:
        EncoderError: the model cannot be loaded, is of an unknown family, or breaks the contract of towers.
        JobError: the prompt's template does not fit, or an endpoint's key is missing.
    """
    if section.endpoint is not None:
        from smoothcert.answerers.endpoint import EndpointAnswerer

        assert certified is not None, "an endpoint is sent the x of an encoder"
        return EndpointAnswerer(section, certified)
    wanted = EncoderSection(
        model=section.model,
        revision=section.revision,
        feature="tokens",
        size=section.size,
        dtype=section.dtype,
        device=encoder.device,
        threads=encoder.threads,
        trust_remote_code=encoder.trust_remote_code,
    )
    try:
        tower, directory = load_tower(wanted, keep_language=section.backend == "transformers")
        tokenizer = load_tokenizer(directory, wanted)
    except EncoderError as exc:
        message, remedy = (text.replace("encoder.", "answer.") for text in (exc.message, exc.remedy))
        raise EncoderError(message, remedy=remedy) from exc
    template = section.template
    if template is None:
        template = chat_template(tokenizer, _chat_source(directory, tokenizer), model=section.model)
    if "{question}" not in template:
        raise JobError(
            f"the chat template of answer.model='{section.model}' leaves the question out",
            remedy="set answer.template, e.g. 'USER: <image> {question} ASSISTANT:'",
        )
    if section.backend == "vllm":
        from smoothcert.answerers.vllm_offline import VllmAnswerer

        return VllmAnswerer(tower, tokenizer, template=template, section=section, directory=str(directory))
    return PretrainedAnswerer(
        tower,
        tokenizer,
        template=template,
        max_new_tokens=section.max_new_tokens,
        temperature=section.temperature,
        batch=section.batch,
    )


def _chat_source(directory: Any, tokenizer: Any) -> Any:
    """The tokenizer, with the template that the directory has for whole conversations."""
    path = directory / "chat_template.jinja"
    if tokenizer.chat_template is None and path.is_file():
        tokenizer.chat_template = path.read_text(encoding="utf-8")
    return tokenizer
