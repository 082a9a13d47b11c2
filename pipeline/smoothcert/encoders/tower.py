"""Vision towers of multimodal models: what their language model sees of an image; a family adds only what differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch

from smoothcert.encoders.layout import GridPreparation
from smoothcert.encoders.preparation import Preparation
from smoothcert.encoders.pretrained import PretrainedEncoder
from smoothcert.errors import EncoderError

NETWORK_INPUTS = frozenset(
    {"pixel_values", "image_grid_thw", "image_sizes", "pixel_attention_mask", "spatial_shapes"}
)
"""What ``get_image_features`` takes of an image processor's outputs, in any family."""

_LANGUAGE = ("language_model", "text_model", "text_decoder", "text_encoder", "lm_head")


class TowerEncoder(PretrainedEncoder):
    """The tower and the projector of a multimodal model of transformers.

    A feature is one vector, named by ``encoder.feature``; certificates speak of exactly that vector:

        projection   mean of the image tokens that enter the language model (B, d)
        tokens       these tokens, one after another (B, T d)
        pooled       mean of the vision tower's tokens, before the projector (B, d_v)

    There is no joint space with texts. The language model is not kept.
    """

    model_class = "AutoModelForImageTextToText"
    has_text_space = False

    joins_depth: ClassVar[bool] = False
    """Whether tokens of earlier layers enter the language model too: ``deepstack_features``, joined to the tokens."""

    @property
    def model(self) -> Any:
        """Of transformers."""
        return self._model

    @classmethod
    def without_language(cls, model: Any) -> Any:
        """See ``PretrainedEncoder.without_language``."""
        for holder in (model, getattr(model, "model", None)):
            for name in _LANGUAGE:
                if isinstance(getattr(holder, name, None), torch.nn.Module):
                    setattr(holder, name, torch.nn.Identity())
        return model

    def image_output(self, normalised: torch.Tensor) -> Any:
        """What transformers calls the image features, batched: ``pooler_output`` enters the language model."""
        return self._model.get_image_features(**self._preparation.lay_out(normalised), return_dict=True)

    def image_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """The image tokens that enter the language model, of pixels as ``encode_images`` takes them: (B, T, d)."""
        return self._entering(self._normalised(pixels))

    def as_output(self, tokens: torch.Tensor) -> Any:
        """Image tokens (B, T, d), a mean over noisy images perhaps, in the form of ``image_output``."""
        probe = self._form
        depth: dict[str, Any] = {}
        if self.joins_depth:
            tokens, *deeper = tokens.chunk(1 + len(probe.deepstack_features), dim=-1)
            depth["deepstack_features"] = [list(each) for each in deeper]
        if isinstance(probe.pooler_output, torch.Tensor):
            entering: Any = tokens.reshape(-1, *probe.pooler_output.shape[1:])
        else:
            entering = list(tokens)
        return type(probe)(pooler_output=entering, **depth)

    def other_inputs(self, count: int) -> dict[str, torch.Tensor]:
        """What the network takes of ``count`` images besides their pixels: sizes and masks."""
        blank = torch.zeros((count, 3, *self.input_size), device=self.device)
        laid = self._preparation.lay_out(blank)
        return {name: value for name, value in laid.items() if name != "pixel_values"}

    @cached_property
    def _form(self) -> Any:
        with torch.no_grad():
            one = torch.ones((1, 3, *self.input_size), device=self.device, dtype=self.dtype)
            return self.image_output(one)

    def _entering(self, normalised: torch.Tensor) -> torch.Tensor:
        output, count = self.image_output(normalised), len(normalised)
        tokens = join_tokens(output.pooler_output, count)
        if not self.joins_depth:
            return tokens
        return torch.cat((tokens, *(join_tokens(each, count) for each in output.deepstack_features)), dim=-1)

    def _tokens(self, normalised: torch.Tensor) -> torch.Tensor:
        return self._entering(normalised)

    def _image_tower(self, normalised: torch.Tensor) -> torch.Tensor:
        if self._feature == "pooled":
            seen = self.image_output(normalised).last_hidden_state
            return join_tokens(seen, len(normalised)).mean(dim=1)
        tokens = self._entering(normalised)
        return tokens.flatten(1) if self._feature == "tokens" else tokens.mean(dim=1)


class GridTowerEncoder(TowerEncoder):
    """A tower that takes images of any size; x has one size for all of them (``GridPreparation``)."""

    processor_settings: ClassVar[Mapping[str, Any]] = {}
    """How the model's own processor calls its image processor."""

    @classmethod
    def make_preparation(
        cls, processor: Any, config: Mapping[str, Any], size: tuple[int, int] | None, *, model: str
    ) -> Preparation | GridPreparation:
        """See ``PretrainedEncoder.make_preparation``."""
        return GridPreparation(
            processor,
            size if size is not None else suitable_size(cls, processor, model),
            model=model,
            wanted=NETWORK_INPUTS,
            settings=cls.processor_settings,
        )

    @classmethod
    def default_size(cls, processor: Any) -> tuple[int, int]:
        """(H, W) of x where the job names none: a grid that the processor takes as it is."""
        raise NotImplementedError


def suitable_size(family: Any, processor: Any, model: str) -> tuple[int, int]:
    """The default grid of a family.

    Raises:
        EncoderError: the processor lacks the settings that it follows from.
    """
    try:
        height, width = family.default_size(processor)
        return int(height), int(width)
    except (AttributeError, TypeError, ValueError, IndexError) as exc:
        raise EncoderError(
            f"encoder.model='{model}': its image processor does not say which grid suits it ({exc})",
            remedy="set encoder.size: [height, width], or correct preprocessor_config.json",
        ) from exc


def join_tokens(tokens: torch.Tensor | Iterable[torch.Tensor], count: int) -> torch.Tensor:
    """Tokens of ``count`` images of one size, in whatever form a family returns them, as (count, T, d)."""
    whole = tokens if isinstance(tokens, torch.Tensor) else torch.cat([each for each in tokens])
    return whole.reshape(count, -1, whole.shape[-1])
