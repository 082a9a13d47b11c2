"""An encoder family of its own: Chinese-CLIP (Yang et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from smoothcert.encoders.pretrained import PretrainedEncoder
from smoothcert.encoders.registry import register_encoder
from smoothcert.errors import EncoderError


@register_encoder("chinese_clip")
class ChineseClipEncoder(PretrainedEncoder):
    """ChineseCLIPModel: CLIP's image tower and a BERT; a text is read at its first token, which must be [CLS]."""

    class_tokens = 1

    def _tokenize(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        tokens = super()._tokenize(texts)
        start = self._tokenizer.cls_token_id
        if start is None or not (tokens["input_ids"][:, 0] == start).all():
            raise EncoderError(
                f"encoder '{self.name}': a text does not begin with the token [CLS], where its feature is read",
                remedy="use the tokenizer that belongs to the checkpoint",
            )
        return tokens
