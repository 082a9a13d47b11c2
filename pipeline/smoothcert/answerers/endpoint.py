"""OpenAI-compatible services as answerers: the image as PNG, the key from the environment, each answer paid once.

What a service does with an image is its own affair, so a certificate by vote is about the service as it answered: its
model must stay the same, and greedy answers may still differ from call to call. x is cut to [0, 1] and rounded to 8
bits on its way: that is part of what is certified.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from smoothcert.answerers.base import Answerer, TextAnswer
from smoothcert.answerers.chat import ChatService, Request, ServiceSettings
from smoothcert.datasets.png import encode_pngs
from smoothcert.job.answer import AnswerSection

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from smoothcert.encoders import Encoder


class EndpointAnswerer(Answerer):
    """A service that is sent images.

    Args:
        section: of the job.
        encoder: whose x is sent.

    Attributes:
        service: what is asked.

    Raises:
        JobError: the key is not in the environment.
    """

    has_tokens = False

    def __init__(self, section: AnswerSection, encoder: Encoder) -> None:
        self._temperature, self._encoder = section.temperature, encoder
        self.service = ChatService(ServiceSettings.of("answer.endpoint", section, section.temperature))
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
        return self.service.ask(
            [
                self._request(png, question, seed)
                for png, question, seed in zip(pngs, questions, seeds, strict=True)
            ]
        )

    def _request(self, png: bytes, question: str, seed: int) -> Request:
        about = json.dumps([self.digest, self.template, question, seed if self._temperature else 0])
        image = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        content = [
            {"type": "image_url", "image_url": {"url": image}},
            {"type": "text", "text": self.prompt(question)},
        ]
        return Request(content, hashlib.sha256(about.encode() + png).hexdigest(), seed)
