"""SigLIP (Zhai et al. 2023) and the fixed-resolution SigLIP 2 checkpoints, which share its class.

Not covered: SigLIP 2 NaFlex (``model_type: siglip2``), whose grid follows each image's shape; a radius needs
one grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from smoothcert.encoders.pretrained import PretrainedEncoder
from smoothcert.encoders.registry import register_encoder


@register_encoder("siglip")
class SiglipEncoder(PretrainedEncoder):
    """SiglipModel: the pooled outputs are the joint space; there are no projections.

    Trained on lower-case texts padded to full length, with attention to the padding: other padding, or a
    mask, gives other features.
    """

    text_padding = "max_length"

    def _spell(self, text: str) -> str:
        return text.lower()

    def _tokenize(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        return {"input_ids": super()._tokenize(texts)["input_ids"]}
