"""Defences: what stands before and behind an encoder, so that attacks and certificates see all of it (torch).

Names are resolved on first use, so that importing this package does not import torch. Training defences is not
part of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smoothcert.defences.defended import DefendedEncoder
    from smoothcert.defences.loading import defend, load_defended
    from smoothcert.defences.modules import ConvolutionalPurifier, LinearMapper, save_module

__all__ = [
    "ConvolutionalPurifier",
    "DefendedEncoder",
    "LinearMapper",
    "defend",
    "load_defended",
    "save_module",
]

_HOME = {
    "ConvolutionalPurifier": "modules",
    "DefendedEncoder": "defended",
    "LinearMapper": "modules",
    "defend": "loading",
    "load_defended": "loading",
    "save_module": "modules",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
