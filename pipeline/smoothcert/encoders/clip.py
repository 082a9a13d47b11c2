"""CLIP (Radford et al. 2021) and what shares its transformers class."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from smoothcert.encoders.base import ReadText
from smoothcert.encoders.pretrained import PretrainedEncoder
from smoothcert.encoders.registry import register_encoder
from smoothcert.errors import EncoderError

_LARGEST = 2
"""With this ``eos_token_id``, which early configurations have, transformers pools at the largest token id."""


@register_encoder("clip")
class ClipEncoder(PretrainedEncoder):
    """CLIPModel: texts padded to the longest of their batch and masked; joint space after the projections.

    The text tower is causal and pools at the first ``eos_token_id``. Where a text has none it pools at the first
    token, which has seen nothing of the text; so such a text is refused.
    """

    class_tokens = 1

    def read_texts(self, texts: Sequence[str]) -> list[ReadText]:
        """See ``Encoder.read_texts``; what follows an end token that stands in the text itself is not read either."""
        return [self._up_to_the_end(read) for read in super().read_texts(texts)]

    def _up_to_the_end(self, read: ReadText) -> ReadText:
        ids = list(read.content) if isinstance(read.content, tuple) else []
        end = self._model.config.text_config.eos_token_id
        end = max(ids) if end == _LARGEST else end
        if end not in ids[:-1]:
            return read
        return ReadText(tuple(ids[: ids.index(end) + 1]), cut=True)

    def _tokenize(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        tokens = super()._tokenize(texts)
        end = self._model.config.text_config.eos_token_id
        if not isinstance(end, int):
            raise EncoderError(
                f"encoder '{self.name}': text_config.eos_token_id={end} in config.json is not a token, so the end of a "
                "text, where CLIP reads its feature, cannot be found",
                remedy=self._how_to_name_the_end(),
            )
        ended = (tokens["input_ids"] == end).any(dim=1)
        if end != _LARGEST and not ended.all():
            text = texts[int(torch.argmin(ended.int()))]
            raise EncoderError(
                f"encoder '{self.name}': the tokens of {text[:80]!r} have no text_config.eos_token_id={end}, so CLIP "
                "would read the feature of its first token, the same for most texts",
                remedy=self._how_to_name_the_end(),
            )
        return tokens

    def _how_to_name_the_end(self) -> str:
        end = self._tokenizer.eos_token_id
        if end is None:
            return "name eos_token in tokenizer_config.json, and its id as text_config.eos_token_id in config.json"
        return (
            f"the tokenizer's end token is {self._tokenizer.eos_token!r} = {end}: make it end every text, and set "
            f"text_config.eos_token_id: {end} in config.json"
        )
