"""Gemma 3 (Gemma team 2025): a SigLIP tower whose tokens are averaged in squares.

Not covered: pan and scan, which crops more images out of one and is off by default.
"""

from __future__ import annotations

from smoothcert.encoders.registry import register_encoder
from smoothcert.encoders.tower import TowerEncoder


@register_encoder("gemma3")
class Gemma3Encoder(TowerEncoder):
    """Gemma3ForConditionalGeneration: the whole image at the tower's resolution."""
