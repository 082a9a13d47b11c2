"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL (Wang et al. 2024, Bai et al. 2025): patches of images of any size, each twice.

The processor repeats every pixel, as the two frames of a film that stands still: noise on its output would be two
values a pixel, which no camera sees.
"""

from __future__ import annotations

from typing import Any

from smoothcert.encoders.registry import register_encoder
from smoothcert.encoders.tower import GridTowerEncoder

_SIDE = 16
"""Merged patches along each side of the default grid."""


@register_encoder("qwen2_vl", "qwen2_5_vl")
class QwenVlEncoder(GridTowerEncoder):
    """Qwen2VLForConditionalGeneration and Qwen2_5_VLForConditionalGeneration: x is whole merged patches."""

    @classmethod
    def default_size(cls, processor: Any) -> tuple[int, int]:
        """See ``GridTowerEncoder.default_size``: 16 merged patches a side, within the processor's limits."""
        factor = processor.patch_size * processor.merge_size
        fewest = -(-int(processor.size.shortest_edge) // factor**2)
        most = int(processor.size.longest_edge) // factor**2
        side = max(min(_SIDE, int(most**0.5)), int(-(-(fewest**0.5) // 1)))
        return side * factor, side * factor


@register_encoder("qwen3_vl")
class Qwen3VlEncoder(QwenVlEncoder):
    """Qwen3VLForConditionalGeneration: tokens of earlier layers enter the language model as well, and count."""

    joins_depth = True
