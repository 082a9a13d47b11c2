"""A vision tower of transformers that answers with means over noisy draws, in place of the one it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from smoothcert.attacks.noise import NoiseKey, draw_chunks
from smoothcert.defences import DefendedEncoder
from smoothcert.encoders import Encoder, PretrainedEncoder
from smoothcert.errors import EncoderError

_CHUNK = 32


@dataclass(frozen=True)
class Smoothing:
    """What a tower is smoothed with.

    Attributes:
        encoder: u.
        features: images (B, 3, H, W) in units of [0,1] to smoothed unit features (B, d).
        sigma: units of [0,1] pixels.
        draws: behind each output.
        seed: of the noise.
    """

    encoder: Encoder
    features: Callable[[torch.Tensor], torch.Tensor]
    sigma: float
    draws: int
    seed: int

    @property
    def base(self) -> PretrainedEncoder:
        """The model of transformers inside.

        Raises:
            EncoderError: there is none.
        """
        base = self.encoder.base if isinstance(self.encoder, DefendedEncoder) else self.encoder
        if isinstance(base, PretrainedEncoder):
            return base
        raise EncoderError(
            f"encoder '{base.name}' is {type(base).__name__}, whose preprocessing no model of transformers shares",
            remedy="smooth a model of transformers",
        )

    def noise_of(self, image: torch.Tensor) -> Iterator[torch.Tensor]:
        """The draws' noise for an image (3, H, W), some at a time: a function of seed and image alone."""
        name = content_name(image.detach().cpu().numpy())
        key = NoiseKey(self.seed, name, "evaluate", ("smoothed",))
        for standard in draw_chunks(key, tuple(image.shape), self.draws, _CHUNK, image.device):
            yield self.sigma * standard


class SmoothedFeatures(torch.nn.Module):
    """Stands where CLIP and SigLIP have ``vision_model``: ``pooler_output`` is the smoothed feature.

    Args:
        smoothing: whose features these are.
        tower: what stood there; its tokens are those without noise, for code that looks at them.
    """

    def __init__(self, smoothing: Smoothing, tower: torch.nn.Module) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.tower = tower

    def forward(self, pixel_values: torch.Tensor, **options: Any) -> Any:
        """See the tower's own."""
        output = self.tower(pixel_values=pixel_values, **{**options, "return_dict": True})
        pixels = self.smoothing.base.denormalised(pixel_values.float())
        output.pooler_output = self.smoothing.features(pixels).to(pixel_values.dtype)
        return output


class SmoothedTokens(torch.nn.Module):
    """Stands where LLaVA and its like have a vision tower: all its outputs are means over draws.

    A mapper of tokens maps each draw's last layer, which it was trained on. Certificates are about features, not about
    what a language model makes of these tokens.

    Args:
        smoothing: noise, purifier, mapper of tokens and number of draws.
        tower: what stood there.
    """

    def __init__(self, smoothing: Smoothing, tower: torch.nn.Module) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.tower = tower

    def forward(self, pixel_values: torch.Tensor, **options: Any) -> Any:
        """See the tower's own."""
        options = {**options, "return_dict": True}
        images = self.smoothing.base.denormalised(pixel_values.float())
        outputs = [self._mean_of(image, options) for image in images]
        first = outputs[0]
        return type(first)(**{name: _join([output[name] for output in outputs]) for name in first})

    def _mean_of(self, image: torch.Tensor, options: dict[str, Any]) -> Any:
        total: Any = None
        for noisy in self._noisy(image):
            output = self._mapped(self.tower(pixel_values=self.smoothing.base.normalised(noisy), **options))
            shares = {name: _added(output[name], self.smoothing.draws) for name in output}
            total = shares if total is None else {name: _plus(total[name], shares[name]) for name in shares}
        return type(output)(**total)

    def _mapped(self, output: Any) -> Any:
        encoder = self.smoothing.encoder
        if not isinstance(encoder, DefendedEncoder) or encoder.token_mapper is None:
            return output
        held, first = output.last_hidden_state, self.smoothing.base.class_tokens
        patches = encoder.token_mapper(held[:, first:].float()).to(held.dtype)
        output.last_hidden_state = torch.cat((held[:, :first], patches), dim=1)
        if output.get("hidden_states") is not None:  # models read the last layer here or there
            output.hidden_states = (*output.hidden_states[:-1], output.last_hidden_state)
        return output

    def _noisy(self, image: torch.Tensor) -> Iterator[torch.Tensor]:
        encoder = self.smoothing.encoder
        purifier = encoder.purifier if isinstance(encoder, DefendedEncoder) else None
        for noise in self.smoothing.noise_of(image):
            noisy = image + noise
            yield noisy if purifier is None else purifier(noisy)


def patch_model(model: Any, smoothing: Smoothing) -> Any:
    """See ``SmoothedEncoder.patch``.

    Raises:
        EncoderError: the model has no vision tower that is known, or does not read what a mapper maps.
    """
    base = smoothing.base
    kinds: tuple[tuple[str, Callable[[Smoothing, Any], torch.nn.Module]], ...] = (
        ("vision_model", SmoothedFeatures),
        ("vision_tower", SmoothedTokens),
    )
    for holder in (model, getattr(model, "model", None)):
        for name, kind in kinds:
            tower = getattr(holder, name, None)
            if tower is None:
                continue
            _refuse_other_size(tower, base)
            if kind is SmoothedTokens:
                _refuse_idle_mapper(model, smoothing.encoder)
            setattr(holder, name, kind(smoothing, tower))
            if kind is SmoothedFeatures and getattr(holder, "visual_projection", None) is not None:
                assert holder is not None
                holder.visual_projection = torch.nn.Identity()  # is part of the smoothed feature
            return model
    raise EncoderError(
        f"{type(model).__name__} has neither vision_model nor vision_tower, so nothing can be replaced",
        remedy="give a CLIP, SigLIP or LLaVA model of transformers",
    )


def _refuse_other_size(tower: Any, base: PretrainedEncoder) -> None:
    size = getattr(tower.config, "image_size", base.input_size[0])
    if size not in (base.input_size[0], base.input_size, list(base.input_size)):
        raise EncoderError(
            f"the model's tower reads images of {size} pixels, encoder '{base.name}' of {base.input_size}",
            remedy="smooth an encoder with the model's own image processor",
        )


def _refuse_idle_mapper(model: Any, encoder: Encoder) -> None:
    """A mapper that does nothing would leave a model less defended than its owner thinks."""
    if not isinstance(encoder, DefendedEncoder):
        return
    if encoder.mapper is not None:
        raise EncoderError(
            f"the mapper of '{encoder.name}' maps whole features, and {type(model).__name__} reads tokens",
            remedy="leave the mapper out, or train one with method: token-mapper",
        )
    layer = getattr(model.config, "vision_feature_layer", -1)
    if encoder.token_mapper is not None and layer != -1:
        raise EncoderError(
            f"the mapper of '{encoder.name}' was trained on the tower's last layer, and {type(model).__name__} reads "
            f"layer {layer}",
            remedy="leave the mapper out, or give a model with vision_feature_layer=-1",
        )


def content_name(image: NDArray[Any]) -> str:
    """A name for an image that its numbers alone determine."""
    return hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).hexdigest()


def _added(value: Any, draws: int) -> Any:
    """A batch's share of the mean, of an output or of a tuple of them; attentions may be None."""
    if isinstance(value, tuple):
        return tuple(_added(each, draws) for each in value)
    return None if value is None else value.sum(dim=0, keepdim=True) / draws


def _plus(one: Any, other: Any) -> Any:
    if isinstance(one, tuple):
        return tuple(map(_plus, one, other))
    return None if one is None else one + other


def _join(values: list[Any]) -> Any:
    if isinstance(values[0], tuple):
        return tuple(_join(list(each)) for each in zip(*values, strict=True))
    return None if values[0] is None else torch.cat(values)
