"""Prompts: a template with one slot for the image, and its tokens with the slot widened to the image's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from smoothcert.errors import JobError

_QUESTION = "{question}"


def chat_template(tokenizer: Any, source: Any, *, model: str) -> str:
    """The prompt that a model's own chat template makes of an image and a question, with ``{question}`` in it.

    Args:
        tokenizer: of the model.
        source: what has ``apply_chat_template``: its processor, or the tokenizer.
        model: for messages.

    Raises:
        JobError: the model has no chat template, or one that takes no image.
    """
    content = [{"type": "image"}, {"type": "text", "text": _QUESTION}]
    try:
        made = source.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
    except Exception as exc:  # jinja's errors, and transformers' own where there is no template
        raise JobError(
            f"answer.model='{model}' has no chat template that takes an image and a question: {exc}",
            remedy="set answer.template, e.g. 'USER: <image> {question} ASSISTANT:'",
        ) from exc
    text = str(made)
    start = tokenizer.bos_token
    # the tokenizer writes it again
    return text.removeprefix(start) if isinstance(start, str) else text


class Prompts:
    """Turns questions into token ids.

    Args:
        tokenizer: of the model.
        template: with ``{question}``, and the image token once.
        image_token_id: of the image token; None for models whose language model attends to the image from outside.
        image_tokens: how many an image takes.
        model: for messages.

    Raises:
        JobError: the template has no slot for the image, or several.
    """

    def __init__(
        self, tokenizer: Any, template: str, image_token_id: int | None, image_tokens: int, *, model: str
    ) -> None:
        self._tokenizer, self._template = tokenizer, template
        self._image, self._count, self._model = image_token_id, image_tokens, model
        self._padding = next(
            (each for each in (tokenizer.pad_token_id, tokenizer.eos_token_id) if each is not None), 0
        )
        if image_token_id is not None:
            slots = self._ids(["?"])[0].count(image_token_id)
            if slots != 1:
                token = tokenizer.convert_ids_to_tokens(image_token_id)
                raise JobError(
                    f"answer.template={template!r} has {slots} slots for the image; answer.model='{model}' takes one, "
                    f"written {token}",
                    remedy=f"write {token} once, before {{question}}",
                )

    def encode(self, questions: Sequence[str], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask (B, length), padded at the left.

        Raises:
            JobError: a question itself holds the image token.
        """
        rows = self.ids(questions)
        longest = max(len(row) for row in rows)
        ids = [[self._padding] * (longest - len(row)) + row for row in rows]
        mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def ids(self, questions: Sequence[str]) -> list[list[int]]:
        """Token ids of each prompt, without padding.

        Raises:
            JobError: a question itself holds the image token.
        """
        return [self._widened(ids, text) for ids, text in zip(self._ids(questions), questions, strict=True)]

    def _ids(self, questions: Sequence[str]) -> list[list[int]]:
        texts = [self._template.replace(_QUESTION, question) for question in questions]
        ids: list[list[int]] = self._tokenizer(texts, verbose=False)["input_ids"]
        return ids

    def _widened(self, ids: list[int], question: str) -> list[int]:
        if self._image is None:
            return ids
        if ids.count(self._image) != 1:
            raise JobError(
                f"the question {question[:80]!r} holds the image token of answer.model='{self._model}'",
                remedy="remove the token from the question",
            )
        place = ids.index(self._image)
        return [*ids[:place], *[self._image] * self._count, *ids[place + 1 :]]
