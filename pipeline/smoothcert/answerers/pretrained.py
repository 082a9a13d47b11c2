"""Multimodal models of transformers as answerers: the tower is an encoder, the language model answers."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from smoothcert.answerers.base import Answerer, TextAnswer
from smoothcert.answerers.entering import ends_prompt_with, generate, logits
from smoothcert.answerers.forced import ForcedTexts
from smoothcert.answerers.prompts import Prompts
from smoothcert.defences.defended_tower import DefendedTower, Eye
from smoothcert.encoders.tower import TowerEncoder
from smoothcert.errors import JobError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


class PretrainedAnswerer(Answerer):
    """A model with its language model, prompts and tower.

    ``tower`` is the model's own; ``eye`` makes the image tokens: the tower, or the tower behind a defence.

    Args:
        tower: of the model, its language model kept.
        tokenizer: of the model.
        template: prompt with ``{question}`` and the image token once.
        max_new_tokens: longest answer.
        temperature: 0 for greedy answers.
        batch: prompts answered together.

    Raises:
        JobError: the template does not fit the model, or the model has no end token.
    """

    has_tokens = True

    def __init__(
        self,
        tower: TowerEncoder,
        tokenizer: Any,
        *,
        template: str,
        max_new_tokens: int,
        temperature: float,
        batch: int,
    ) -> None:
        self.tower: TowerEncoder = tower
        self.eye: Eye = tower
        self._model = tower.model
        self._tokenizer = tokenizer
        self.name, self.input_size = tower.name, tower.input_size
        self.device, self.dtype = tower.device, str(tower.dtype).removeprefix("torch.")
        self.template = template
        self.template_digest = hashlib.sha256(template.encode()).hexdigest()
        self.digest = hashlib.sha256(f"{tower.digest} {max_new_tokens} {temperature!r}".encode()).hexdigest()
        self._longest, self._temperature, self._batch = max_new_tokens, temperature, batch
        with torch.no_grad():
            count = tower.image_tokens(torch.rand((1, 3, *tower.input_size), device=tower.device)).shape[1]
        image = None if self._model.config.model_type == "blip" else self._model.config.image_token_id
        self._prompts = Prompts(tokenizer, template, image, count, model=tower.name)
        if not self._ends():
            raise JobError(
                f"answer.model='{tower.name}' names no end token, so that no answer would come to its end",
                remedy="set eos_token_id in the model's generation_config.json",
            )

    def behind(self, eye: DefendedTower) -> PretrainedAnswerer:
        """The same model, whose image tokens are those of a defended tower."""
        defended = copy.copy(self)
        defended.eye, defended.name = eye, eye.name
        defended.digest = hashlib.sha256(f"{self.digest} {eye.digest}".encode()).hexdigest()
        return defended

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """See ``Answerer.prepare``."""
        return self.tower.prepare(image)

    def answer(
        self, pixels: torch.Tensor, questions: Sequence[str], seeds: Sequence[int]
    ) -> list[TextAnswer]:
        """See ``Answerer.answer``."""
        answers: list[TextAnswer] = []
        for start in range(0, len(questions), self._batch):
            part = slice(start, start + self._batch)
            tokens = self.image_tokens(pixels[part])
            answers += self.answer_tokens(tokens, questions[part], seeds[part])
        return answers

    @torch.inference_mode()
    def image_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """See ``Answerer.image_tokens``."""
        return self.eye.image_tokens(pixels)

    @torch.inference_mode()
    def answer_tokens(
        self, tokens: torch.Tensor, questions: Sequence[str], seeds: Sequence[int]
    ) -> list[TextAnswer]:
        """See ``Answerer.answer_tokens``."""
        size = self._batch if self._temperature == 0 else 1  # a batch would share its random numbers
        answers: list[TextAnswer] = []
        for start in range(0, len(questions), size):
            part = slice(start, start + size)
            if self._temperature == 0:
                answers += self._generate(tokens[part], questions[part])
            else:
                devices = [self.device] if self.device.type == "cuda" else []
                with torch.random.fork_rng(devices):
                    torch.manual_seed(seeds[start])
                    answers += self._generate(tokens[part], questions[part])
        return answers

    @torch.inference_mode()
    def say(self, tokens: torch.Tensor, questions: Sequence[str]) -> list[list[int]]:
        """Token ids of greedy answers to image tokens (B, T, d), the end token included where they come to one."""
        said: list[list[int]] = []
        for start in range(0, len(questions), self._batch):
            part = slice(start, start + self._batch)
            prompt = self._prompts.encode(questions[part], self.device)
            ids = generate(
                self._model,
                self.tower,
                tokens[part].to(self.tower.dtype),
                prompt,
                max_new_tokens=self._longest,
                do_sample=False,
                num_beams=1,
            )
            said += [self._upto(row) for row in ids.tolist()]
        return said

    def read(self, said: Sequence[int]) -> TextAnswer:
        """The answer that token ids say."""
        return self._read(list(said), self._ends())

    def spell(self, text: str) -> list[int]:
        """Token ids of a text as an answer, its end included where the model has one."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*ids, *sorted(self._ends())[:1]]

    def force(self, questions: Sequence[str], said: Sequence[Sequence[int]]) -> ForcedTexts:
        """Answers to hold the model to, one for each question, as token ids."""
        prompts = self._prompts.ids(questions)
        last = ends_prompt_with(self._model)
        prompts = [ids[:-1] if last is not None and ids[-1] == last else ids for ids in prompts]
        return ForcedTexts.of(prompts, said, self.device)

    def scores(self, tokens: torch.Tensor, forced: ForcedTexts) -> torch.Tensor:
        """What the language model thinks of every place of forced answers, given image tokens (B, T, d): (B, L, words).

        Differentiable with respect to the tokens.
        """
        return logits(self._model, self.tower, tokens.to(self.tower.dtype), forced.ids, forced.answer)

    def _generate(self, tokens: torch.Tensor, questions: Sequence[str]) -> list[TextAnswer]:
        sampled = self._temperature > 0
        prompt = self._prompts.encode(questions, self.device)
        ids = generate(
            self._model,
            self.tower,
            tokens.to(self.tower.dtype),
            prompt,
            max_new_tokens=self._longest,
            do_sample=sampled,
            num_beams=1,
            **({"temperature": self._temperature, "top_k": 0, "top_p": 1.0} if sampled else {}),
        )
        ends = self._ends()
        return [self._read(row, ends) for row in ids.tolist()]

    def _upto(self, ids: list[int]) -> list[int]:
        """Token ids up to the end token, which stays."""
        ends = self._ends()
        end = next((place for place, token in enumerate(ids) if token in ends), None)
        return ids if end is None else ids[: end + 1]

    def _read(self, ids: list[int], ends: set[int]) -> TextAnswer:
        """An answer up to its end token; what follows is padding."""
        end = next((place for place, token in enumerate(ids) if token in ends), None)
        kept = ids if end is None else ids[:end]
        text = self._tokenizer.decode(kept, skip_special_tokens=True).strip()
        return TextAnswer(text, len(kept), end is not None)

    def _ends(self) -> set[int]:
        if self._model.config.model_type == "blip":
            return {self._model.config.text_config.sep_token_id}
        found = self._model.generation_config.eos_token_id
        if found is None:
            return set()
        return set(found) if isinstance(found, list) else {found}
