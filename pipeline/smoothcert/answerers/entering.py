"""How image tokens enter a language model: one way for most families, two for the older ones."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from smoothcert.encoders.tower import TowerEncoder


def generate(
    model: Any,
    tower: TowerEncoder,
    tokens: torch.Tensor,
    prompt: tuple[torch.Tensor, torch.Tensor],
    **settings: Any,
) -> torch.Tensor:
    """Token ids of answers, without those of the prompts.

    Args:
        model: of transformers, with its language model.
        tower: of the same model.
        tokens: (B, T, d) image tokens.
        prompt: ids and attention mask (B, length), as many image tokens in them as T.
        settings: of transformers' ``generate``.
    """
    ids, mask = prompt
    kind = model.config.model_type
    if kind == "blip":
        return _attended(model, tokens, ids, mask, settings)
    if kind in ("blip-2", "instructblip"):
        return _scattered(model, tokens, ids, mask, settings)
    named = set(inspect.signature(type(model).forward).parameters)
    is_image = (ids == model.config.image_token_id).long()
    types = {name: is_image for name in ("mm_token_type_ids", "token_type_ids") if name in named}
    if kind == "paligemma":
        types = {"token_type_ids": torch.zeros_like(ids)}  # all of it is prefix
    others = {name: value for name, value in tower.other_inputs(len(tokens)).items() if name in named}
    made: torch.Tensor = model.generate(
        input_ids=ids,
        attention_mask=mask,
        mm_encoder_outputs={"image": tower.as_output(tokens)},
        **types,
        **others,
        **settings,
    )
    return made[:, ids.shape[1] :]


def _scattered(
    model: Any, tokens: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, settings: dict[str, Any]
) -> torch.Tensor:
    """Into the places of the image token, among the embeddings of the prompt."""
    embeds = model.get_input_embeddings()(ids)
    is_image = (ids == model.config.image_token_id).unsqueeze(-1)
    embeds = embeds.masked_scatter(is_image, tokens.to(embeds.dtype))
    made: torch.Tensor = model.language_model.generate(inputs_embeds=embeds, attention_mask=mask, **settings)
    return made


def _attended(
    model: Any, tokens: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, settings: dict[str, Any]
) -> torch.Tensor:
    """Attended to by a decoder of text, from outside; its prompts begin with a token of its own, and do not end."""
    config = model.config.text_config
    if (ids[:, -1] == config.sep_token_id).all():
        ids, mask = ids[:, :-1], mask[:, :-1]
    first = mask.cumsum(dim=1) * mask == 1
    ids = torch.where(first, torch.full_like(ids, config.bos_token_id), ids)
    seen = torch.ones(tokens.shape[:2], dtype=torch.long, device=tokens.device)
    made: torch.Tensor = model.text_decoder.generate(
        input_ids=ids,
        attention_mask=mask,
        encoder_hidden_states=tokens,
        encoder_attention_mask=seen,
        eos_token_id=config.sep_token_id,
        pad_token_id=config.pad_token_id,
        **settings,
    )
    return made[:, ids.shape[1] :]
