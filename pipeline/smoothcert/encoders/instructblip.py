"""InstructBLIP (Dai et al. 2023): BLIP-2 whose Q-Former also reads the instruction."""

from __future__ import annotations

from typing import Any

import torch

from smoothcert.encoders.registry import register_encoder
from smoothcert.encoders.tower import TowerEncoder


@register_encoder("instructblip")
class InstructBlipEncoder(TowerEncoder):
    """InstructBlipForConditionalGeneration without an instruction: the queries read the image alone."""

    def image_output(self, normalised: torch.Tensor) -> Any:
        """See ``TowerEncoder.image_output``."""
        nothing = torch.zeros((len(normalised), 0), dtype=torch.long, device=normalised.device)
        return self._model.get_image_features(
            **self._preparation.lay_out(normalised),
            qformer_input_ids=nothing,
            qformer_attention_mask=nothing,
            return_dict=True,
        )
