"""LLaVA (Liu et al. 2023): a CLIP or SigLIP tower, a projector, and a language model."""

from __future__ import annotations

from smoothcert.encoders.registry import register_encoder
from smoothcert.encoders.tower import TowerEncoder


@register_encoder("llava")
class LlavaEncoder(TowerEncoder):
    """LlavaForConditionalGeneration: the whole image at the tower's resolution."""
