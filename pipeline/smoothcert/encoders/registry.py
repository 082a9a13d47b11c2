"""Which encoder class reads which transformers ``model_type``."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

from smoothcert.errors import EncoderError, did_you_mean

if TYPE_CHECKING:
    from smoothcert.encoders.pretrained import PretrainedEncoder

_FAMILIES = (
    "blip",
    "blip_2",
    "clip",
    "gemma3",
    "idefics2",
    "idefics3",
    "instructblip",
    "internvl",
    "llava",
    "llava_next",
    "llava_onevision",
    "metaclip_2",
    "paligemma",
    "qwen_vl",
    "siglip",
    "siglip2",
)
"""Modules of this package that register an encoder; a new family is one more file and one more name here."""

_registered: dict[str, type[PretrainedEncoder]] = {}

_E = TypeVar("_E", bound="type[PretrainedEncoder]")


def register_encoder(*names: str) -> Callable[[_E], _E]:
    """Class decorator: this encoder class reads models whose config.json has one of these ``model_type``."""

    def register(cls: _E) -> _E:
        for name in names:
            _registered[name] = cls
        return cls

    return register


def model_types() -> list[str]:
    """Known ``model_type`` values, sorted."""
    for family in _FAMILIES:
        import_module(f"smoothcert.encoders.{family}")
    return sorted(_registered)


def encoder_class(model_type: str, *, model: str) -> type[PretrainedEncoder]:
    """The class for a ``model_type``.

    Raises:
        EncoderError: nothing is registered for it.
    """
    known = model_types()
    if model_type not in _registered:
        raise EncoderError(
            f"encoder.model='{model}' has model_type='{model_type}', which no registered encoder supports"
            f"{did_you_mean(model_type, known)}; known: {', '.join(known)}",
            remedy="use a model of a known family, or register one with smoothcert.encoders.register_encoder",
        )
    return _registered[model_type]
