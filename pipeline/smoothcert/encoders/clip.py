"""CLIP (Radford et al. 2021) and what shares its transformers class."""

from __future__ import annotations

from smoothcert.encoders.pretrained import PretrainedEncoder
from smoothcert.encoders.registry import register_encoder


@register_encoder("clip")
class ClipEncoder(PretrainedEncoder):
    """CLIPModel: texts padded to the longest of their batch and masked; joint space after the projections."""

    class_tokens = 1
