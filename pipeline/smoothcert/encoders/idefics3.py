"""Idefics3 (Laurençon et al. 2024) and SmolVLM (Marafioti et al. 2025): tiles, and a smaller copy of the image."""

from __future__ import annotations

from typing import Any

from smoothcert.encoders.registry import register_encoder
from smoothcert.encoders.tower import GridTowerEncoder


@register_encoder("idefics3", "smolvlm")
class Idefics3Encoder(GridTowerEncoder):
    """Idefics3ForConditionalGeneration, SmolVLMForConditionalGeneration: x has the processor's longest edge."""

    @classmethod
    def default_size(cls, processor: Any) -> tuple[int, int]:
        """See ``GridTowerEncoder.default_size``."""
        return processor.size.longest_edge, processor.size.longest_edge
