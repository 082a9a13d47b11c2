"""InternVL (Chen et al. 2024) as in transformers: tiles of the image, and a smaller copy where there are several."""

from __future__ import annotations

from typing import Any

from smoothcert.encoders.registry import register_encoder
from smoothcert.encoders.tower import GridTowerEncoder


@register_encoder("internvl")
class InternVlEncoder(GridTowerEncoder):
    """InternVLForConditionalGeneration: x is whole tiles, one by default."""

    processor_settings = {"crop_to_patches": True}

    @classmethod
    def default_size(cls, processor: Any) -> tuple[int, int]:
        """See ``GridTowerEncoder.default_size``."""
        return processor.size.height, processor.size.width
