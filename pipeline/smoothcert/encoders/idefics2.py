"""Idefics2 (Laurençon et al. 2024): images at their own shape, tokens resampled by a perceiver."""

from __future__ import annotations

from typing import Any

from smoothcert.encoders.registry import register_encoder
from smoothcert.encoders.tower import GridTowerEncoder


@register_encoder("idefics2")
class Idefics2Encoder(GridTowerEncoder):
    """Idefics2ForConditionalGeneration: x is a square of the longest edge that its processor leaves."""

    @classmethod
    def default_size(cls, processor: Any) -> tuple[int, int]:
        """See ``GridTowerEncoder.default_size``."""
        return processor.size.longest_edge, processor.size.longest_edge
