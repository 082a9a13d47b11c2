"""OpenAI-compatible services as answerers: the image as PNG, the key from the environment, each answer paid once.

What a service does with an image is its own affair, so a certificate by vote is about the service as it answered: its
model must stay the same, and greedy answers may still differ from call to call. x is cut to [0, 1] and rounded to 8
bits on its way: that is part of what is certified.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import requests
import torch
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from smoothcert.answerers.base import Answerer, TextAnswer
from smoothcert.datasets.png import encode_pngs
from smoothcert.errors import EndpointError, JobError
from smoothcert.job.answer import AnswerSection

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from smoothcert.encoders import Encoder

PAUSE_S = 0.5
"""The first pause before another attempt; each further one is twice as long, or what the service asks for."""
_TURNED_AWAY = (408, 429, 500, 502, 503, 504)
_LONGEST_QUOTE = 200


class EndpointAnswerer(Answerer):
    """Asks ``<endpoint>/chat/completions``.

    Args:
        section: of the job.
        encoder: whose x is sent.
        recall: what was answered before, by key; None where it was not.
        remember: keeps an answer by key.

    Raises:
        JobError: the key is not in the environment, or the template has no place for it.
    """

    has_tokens = False

    def __init__(
        self,
        section: AnswerSection,
        encoder: Encoder,
        *,
        recall: Callable[[str], bytes | None] = lambda key: None,
        remember: Callable[[str, bytes], object] = lambda key, answer: None,
    ) -> None:
        assert section.endpoint is not None, "a section without an endpoint"
        self._section, self._encoder = section, encoder
        self._url = section.endpoint.rstrip("/") + "/chat/completions"
        self.recall, self.remember = recall, remember
        self.name, self.input_size = section.model, encoder.input_size
        self.device, self.dtype = torch.device("cpu"), "uint8"
        self.template = section.template or "{question}"
        self.template_digest = hashlib.sha256(self.template.encode()).hexdigest()
        what = (
            section.endpoint,
            section.model,
            section.max_new_tokens,
            section.temperature,
            encoder.input_size,
        )
        self.digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()
        key = os.environ.get(section.key_variable, "")
        if not key.strip():
            raise JobError(
                f"answer.endpoint='{section.endpoint}' needs a key, but the environment has no {section.key_variable}",
                remedy=f"export {section.key_variable}=... here and on every worker; any text where it takes no key",
            )
        self._key = key.strip()
        self._session = _session(self._key, section.retries)

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """See ``Answerer.prepare``: x of the job's encoder."""
        return self._encoder.prepare(image)

    def answer(
        self, pixels: torch.Tensor, questions: Sequence[str], seeds: Sequence[int]
    ) -> list[TextAnswer]:
        """See ``Answerer.answer``; what was answered before is not asked again.

        Raises:
            EndpointError: the service is down, refuses us, or answers what is no answer.
        """
        grey = (pixels.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).cpu().numpy()
        pngs = encode_pngs(np.ascontiguousarray(grey.transpose(0, 2, 3, 1)))
        return [
            self._once(png, question, seed)
            for png, question, seed in zip(pngs, questions, seeds, strict=True)
        ]

    def _once(self, png: bytes, question: str, seed: int) -> TextAnswer:
        about = json.dumps([self.digest, self.template, question, seed if self._section.temperature else 0])
        key = hashlib.sha256(about.encode() + png).hexdigest()
        known = self.recall(key)
        if known is not None:
            return TextAnswer(**json.loads(known))
        answer = self._read(self._post(png, question, seed))
        said = {"text": answer.text, "tokens": answer.tokens}
        said |= {"complete": answer.complete, "refused": answer.refused}
        self.remember(key, json.dumps(said).encode())
        return answer

    def _post(self, png: bytes, question: str, seed: int) -> dict[str, Any]:
        image = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        content = [
            {"type": "image_url", "image_url": {"url": image}},
            {"type": "text", "text": self.prompt(question)},
        ]
        body: dict[str, Any] = {
            "model": self._section.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self._section.max_new_tokens,
            "temperature": self._section.temperature,
        }
        if self._section.temperature:
            body["seed"] = seed % 2**31
        for attempt in range(self._section.retries + 1):
            try:
                response = self._session.post(self._url, json=body, timeout=self._section.timeout_s)
            except requests.RequestException as exc:
                raise self._failure(
                    f"cannot be reached ({type(exc).__name__})", "check the URL, and that it is up"
                ) from exc
            if not response.ok:
                said = response.text.replace(self._key, "<key>")[:_LONGEST_QUOTE]
                raise self._failure(
                    f"answers {response.status_code}: {said}",
                    f"check {self._section.key_variable}, answer.model and your limits; what was answered is kept",
                )
            try:
                data = response.json()
            except ValueError:
                if attempt == self._section.retries:
                    raise self._failure(
                        "answers what is no JSON, again and again", "ask its operator"
                    ) from None
                continue
            if isinstance(data, dict):
                return data
            break
        raise self._failure("answers JSON that is no object", "is it OpenAI-compatible?")

    def _read(self, data: dict[str, Any]) -> TextAnswer:
        told = data.get("model")
        if isinstance(told, str) and not _same_model(told, self._section.model):
            raise self._failure(
                f"answers with model '{told[:_LONGEST_QUOTE]}'",
                "name that model in answer.model, or another endpoint",
            )
        try:
            choice = data["choices"][0]
            message = choice["message"]
            text, refusal = message.get("content"), message.get("refusal")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise self._failure(
                "answers JSON without choices and message", "is it OpenAI-compatible?"
            ) from None
        usage = data.get("usage")
        tokens = usage.get("completion_tokens", 0) if isinstance(usage, dict) else 0
        ended = choice.get("finish_reason")
        refused = bool(refusal) or ended == "content_filter"
        said = text if isinstance(text, str) else (refusal if isinstance(refusal, str) else "")
        return TextAnswer(said.strip(), tokens if isinstance(tokens, int) else 0, ended != "length", refused)

    def _failure(self, what: str, remedy: str) -> EndpointError:
        return EndpointError(f"answer.endpoint='{self._section.endpoint}' {what}", remedy=remedy)


def _same_model(told: str, asked: str) -> bool:
    """Services add a date or a revision to the name, or leave the owner out."""
    return (
        told.startswith(asked)
        or asked.endswith(told)
        or told.rpartition("/")[2].startswith(asked.rpartition("/")[2])
    )


class _Bearer:
    """The key as a header of each request; set this way no .netrc replaces it, and it is in no text of an error."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


def _session(key: str, retries: int) -> requests.Session:
    policy = Retry(
        total=retries,
        backoff_factor=PAUSE_S,
        status_forcelist=_TURNED_AWAY,
        allowed_methods=frozenset({"POST"}),
        respect_retry_after_header=True,
        raise_on_status=False,
    )
    session = requests.Session()
    session.auth = _Bearer(key)
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=policy))
    return session
