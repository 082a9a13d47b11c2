"""LLaVA-OneVision (Li et al. 2024): tiles of the image beside a smaller copy of all of it, SigLIP tower."""

from __future__ import annotations

from typing import Any

from smoothcert.encoders.llava_next import square_of_tiles
from smoothcert.encoders.registry import register_encoder
from smoothcert.encoders.tower import GridTowerEncoder


@register_encoder("llava_onevision")
class LlavaOnevisionEncoder(GridTowerEncoder):
    """LlavaOnevisionForConditionalGeneration: x is one of the grids of ``image_grid_pinpoints``."""

    @classmethod
    def default_size(cls, processor: Any) -> tuple[int, int]:
        """See ``GridTowerEncoder.default_size``."""
        return square_of_tiles(processor.image_grid_pinpoints)
