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
        ids, mask, seen = _attending(model, tokens, ids, mask)
        made = model.text_decoder.generate(
            input_ids=ids,
            attention_mask=mask,
            **seen,
            eos_token_id=model.config.text_config.sep_token_id,
            pad_token_id=model.config.text_config.pad_token_id,
            **settings,
        )
    elif kind in _SCATTERED:
        embeds = _embedded(model, tokens, ids)
        scattered: torch.Tensor = model.language_model.generate(
            inputs_embeds=embeds, attention_mask=mask, **settings
        )
        return scattered
    else:
        given = _given(model, tower, tokens, ids, torch.zeros_like(ids))
        made = model.generate(input_ids=ids, attention_mask=mask, **given, **settings)
    answers: torch.Tensor = made[:, ids.shape[1] :]
    return answers


def logits(
    model: Any, tower: TowerEncoder, tokens: torch.Tensor, ids: torch.Tensor, answer: torch.Tensor
) -> torch.Tensor:
    """What the language model thinks comes next, at every place of prompts with answers behind them: (B, L, words).

    Differentiable with respect to the image tokens.

    Args:
        model: of transformers, with its language model.
        tower: of the same model.
        tokens: (B, T, d) image tokens.
        ids: (B, L) prompts, answers and padding behind them; no padding before them.
        answer: bool (B, L), where the answers are.
    """
    before = answer.long().flip(1).cumsum(1).flip(1) > 0
    mask = before.long()
    kind = model.config.model_type
    if kind == "blip":
        first = torch.full_like(ids[:, :1], model.config.text_config.bos_token_id)
        seen = _seen(tokens)
        made = model.text_decoder(input_ids=torch.cat((first, ids[:, 1:]), 1), attention_mask=mask, **seen)
    elif kind in _SCATTERED:
        made = model.language_model(inputs_embeds=_embedded(model, tokens, ids), attention_mask=mask)
    else:
        given = _given(model, tower, tokens, ids, answer.long())
        made = model(input_ids=ids, attention_mask=mask, **given)
    scores: torch.Tensor = made.logits
    return scores


def ends_prompt_with(model: Any) -> int | None:
    """The token that a prompt's tokens end with and that its language model is not shown; None for none."""
    if model.config.model_type != "blip":
        return None
    found: int = model.config.text_config.sep_token_id
    return found


_SCATTERED = ("blip-2", "instructblip")


def _given(
    model: Any, tower: TowerEncoder, tokens: torch.Tensor, ids: torch.Tensor, answer: torch.Tensor
) -> dict[str, Any]:
    """What a model takes besides ids and mask."""
    named = set(inspect.signature(type(model).forward).parameters)
    is_image = (ids == model.config.image_token_id).long()
    types: dict[str, Any] = {
        name: is_image for name in ("mm_token_type_ids", "token_type_ids") if name in named
    }
    if model.config.model_type == "paligemma":
        types = {"token_type_ids": answer}  # all before it is prefix
    others = {name: value for name, value in tower.other_inputs(len(tokens)).items() if name in named}
    return {"mm_encoder_outputs": {"image": tower.as_output(tokens)}, **types, **others}


def _embedded(model: Any, tokens: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Image tokens in the places of the image token, among the embeddings of the prompt."""
    embeds: torch.Tensor = model.get_input_embeddings()(ids)
    is_image = (ids == model.config.image_token_id).unsqueeze(-1)
    return embeds.masked_scatter(is_image, tokens.to(embeds.dtype))


def _attending(
    model: Any, tokens: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Prompts for a decoder that sees the image from outside: they begin with a token of its own, and do not end."""
    config = model.config.text_config
    if (ids[:, -1] == config.sep_token_id).all():
        ids, mask = ids[:, :-1], mask[:, :-1]
    first = mask.cumsum(dim=1) * mask == 1
    return torch.where(first, torch.full_like(ids, config.bos_token_id), ids), mask, _seen(tokens)


def _seen(tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    every = torch.ones(tokens.shape[:2], dtype=torch.long, device=tokens.device)
    return {"encoder_hidden_states": tokens, "encoder_attention_mask": every}
