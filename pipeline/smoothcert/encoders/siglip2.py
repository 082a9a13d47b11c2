"""SigLIP 2 NaFlex (Tschannen et al. 2025): patches of images of any shape; fixed-size checkpoints are SigLIP's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smoothcert.encoders.layout import GridPreparation
from smoothcert.encoders.preparation import Preparation
from smoothcert.encoders.registry import register_encoder
from smoothcert.encoders.siglip import SiglipEncoder
from smoothcert.encoders.tower import NETWORK_INPUTS, suitable_size


@register_encoder("siglip2")
class Siglip2Encoder(SiglipEncoder):
    """Siglip2Model: x is a square of as many patches as the model takes; texts as in SigLIP."""

    @classmethod
    def make_preparation(
        cls, processor: Any, config: Mapping[str, Any], size: tuple[int, int] | None, *, model: str
    ) -> Preparation | GridPreparation:
        """See ``PretrainedEncoder.make_preparation``."""
        grid = size if size is not None else suitable_size(cls, processor, model)
        return GridPreparation(processor, grid, model=model, wanted=NETWORK_INPUTS)

    @classmethod
    def default_size(cls, processor: Any) -> tuple[int, int]:
        """(H, W): the largest square of whole patches."""
        side = int(processor.max_num_patches**0.5) * processor.patch_size
        return side, side
