"""MetaCLIP 2 (Chuang et al. 2025): CLIP's towers and a multilingual tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from smoothcert.encoders.pretrained import PretrainedEncoder
from smoothcert.encoders.registry import register_encoder
from smoothcert.errors import EncoderError


@register_encoder("metaclip_2")
class MetaClip2Encoder(PretrainedEncoder):
    """MetaClip2Model: a text is read at its first ``eos_token_id``."""

    class_tokens = 1

    def _tokenize(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        tokens = super()._tokenize(texts)
        end = self._model.config.text_config.eos_token_id
        if not (tokens["input_ids"] == end).any(dim=1).all():
            raise EncoderError(
                f"encoder '{self.name}': a text has no text_config.eos_token_id={end}, where its feature is read",
                remedy="correct eos_token_id in config.json, or the tokenizer",
            )
        return tokens
