"""BLIP-2 (Li et al. 2023): a ViT whose tokens a Q-Former reads with a fixed number of queries."""

from __future__ import annotations

from smoothcert.encoders.registry import register_encoder
from smoothcert.encoders.tower import TowerEncoder


@register_encoder("blip-2")
class Blip2Encoder(TowerEncoder):
    """Blip2ForConditionalGeneration: one token a query enters the language model."""
