"""The contract of answerers: an image, or what a language model sees of it, and a question in; text out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True, slots=True)
class TextAnswer:
    """What was answered.

    Attributes:
        text: without blanks at its ends.
        tokens: how many the answer took; 0 where nobody says.
        complete: the answer came to its own end; False: it was cut at the longest that is allowed.
        refused: the model declined to answer.
    """

    text: str
    tokens: int
    complete: bool
    refused: bool = False


class Answerer(ABC):
    """Answers questions about canonical inputs x (docs/theory.md section 1).

    x is what the model's own image processor makes before it cuts tiles, rescales and normalises, divided by 255, as
    for ``Encoder``; noise is added to x.

    Guarantees:
        * greedy answers are a function of x and question, up to rounding of the arithmetic;
        * sampled answers are a function of x, question and seed;
        * parameters do not require gradients, modules are in evaluation mode.

    Attributes:
        name: what the user called it.
        digest: hex sha256 of what determines its answers, without the prompts.
        template: the prompt, with ``{question}``.
        template_digest: hex sha256 of it.
        input_size: (H, W) of x.
        device: where pixels are expected.
        dtype: arithmetic inside the model.
        has_tokens: it shows image tokens, and answers questions about them.
    """

    name: str
    digest: str
    template: str
    template_digest: str
    input_size: tuple[int, int]
    device: torch.device
    dtype: str
    has_tokens: bool

    @abstractmethod
    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Canonical input of an image, times 255: as ``Encoder.prepare``."""

    @abstractmethod
    def answer(
        self, pixels: torch.Tensor, questions: Sequence[str], seeds: Sequence[int]
    ) -> list[TextAnswer]:
        """Answers to questions, one about each image.

        Args:
            pixels: float (B, 3, H, W) on ``device``, in units of [0,1]; values may leave [0,1].
            questions: B of them.
            seeds: B of them; only sampled answers depend on them.
        """

    def image_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """What the language model sees of images: float (B, T, d). Endpoints have none.

        Raises:
            NotImplementedError: this answerer takes images only.
        """
        raise NotImplementedError(f"answerer '{self.name}' shows no image tokens")

    def answer_tokens(
        self, tokens: torch.Tensor, questions: Sequence[str], seeds: Sequence[int]
    ) -> list[TextAnswer]:
        """As ``answer``, of image tokens (B, T, d), such as a mean over noisy images.

        Raises:
            NotImplementedError: this answerer takes images only.
        """
        raise NotImplementedError(f"answerer '{self.name}' takes no image tokens")

    def say(self, tokens: torch.Tensor, questions: Sequence[str]) -> list[list[int]]:
        """Token ids of greedy answers to image tokens (B, T, d), ends included.

        Raises:
            NotImplementedError: this answerer takes images only.
        """
        raise NotImplementedError(f"answerer '{self.name}' takes no image tokens")

    def read(self, said: Sequence[int]) -> TextAnswer:
        """The answer that token ids of ``say`` say.

        Raises:
            NotImplementedError: this answerer shows no tokens.
        """
        raise NotImplementedError(f"answerer '{self.name}' shows no tokens")

    def prompt(self, question: str) -> str:
        """The text around a question, with one slot for the image."""
        return self.template.replace("{question}", question)
