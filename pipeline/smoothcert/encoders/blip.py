"""BLIP (Li et al. 2022), the models that caption and answer: their text decoder attends to the tower's tokens."""

from __future__ import annotations

from typing import Any

import torch

from smoothcert.encoders.registry import register_encoder
from smoothcert.encoders.tower import TowerEncoder


@register_encoder("blip")
class BlipEncoder(TowerEncoder):
    """BlipForConditionalGeneration: no projector; the language model sees the vision tower's tokens themselves.

    Not covered: the joint space of the retrieval models.
    """

    class_tokens = 1

    def image_output(self, normalised: torch.Tensor) -> Any:
        """See ``TowerEncoder.image_output``."""
        output = self._model.vision_model(**self._preparation.lay_out(normalised), return_dict=True)
        output.pooler_output = output.last_hidden_state
        return output
