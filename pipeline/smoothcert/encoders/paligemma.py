"""PaliGemma (Beyer et al. 2024) and PaliGemma 2: a SigLIP tower and Gemma."""

from __future__ import annotations

from smoothcert.encoders.registry import register_encoder
from smoothcert.encoders.tower import TowerEncoder


@register_encoder("paligemma")
class PaliGemmaEncoder(TowerEncoder):
    """PaliGemmaForConditionalGeneration: the whole image at the tower's resolution."""
