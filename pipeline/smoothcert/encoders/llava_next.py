"""LLaVA-Next (Liu et al. 2024): tiles of the image beside a smaller copy of all of it."""

from __future__ import annotations

from typing import Any

from smoothcert.encoders.registry import register_encoder
from smoothcert.encoders.tower import GridTowerEncoder


@register_encoder("llava_next")
class LlavaNextEncoder(GridTowerEncoder):
    """LlavaNextForConditionalGeneration: x is one of the grids of ``image_grid_pinpoints``."""

    @classmethod
    def default_size(cls, processor: Any) -> tuple[int, int]:
        """See ``GridTowerEncoder.default_size``: 2 x 2 tiles where the model knows that grid."""
        return square_of_tiles(processor.image_grid_pinpoints)


def square_of_tiles(pinpoints: list[list[int]]) -> tuple[int, int]:
    """The second smallest square of the grids, or the smallest, or the first of all."""
    squares = sorted(tuple(grid) for grid in pinpoints if grid[0] == grid[1])
    height, width = squares[min(1, len(squares) - 1)] if squares else pinpoints[0]
    return height, width
