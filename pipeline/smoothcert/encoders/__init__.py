"""Encoders: from an image to x, and from noisy x to a unit feature (torch, transformers).

Names are resolved on first use, so that importing this package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoothcert.late_names import resolve_late

if TYPE_CHECKING:
    from smoothcert.encoders.base import Encoder
    from smoothcert.encoders.contract import check_encoder
    from smoothcert.encoders.known import KnownEncoder
    from smoothcert.encoders.loading import load_encoder
    from smoothcert.encoders.locate import bundled_models
    from smoothcert.encoders.module_encoder import ModuleEncoder
    from smoothcert.encoders.pretrained import PretrainedEncoder
    from smoothcert.encoders.registry import model_types, register_encoder

__all__ = [
    "Encoder",
    "KnownEncoder",
    "ModuleEncoder",
    "PretrainedEncoder",
    "bundled_models",
    "check_encoder",
    "load_encoder",
    "model_types",
    "register_encoder",
]

_HOME = {
    "Encoder": "base",
    "KnownEncoder": "known",
    "ModuleEncoder": "module_encoder",
    "PretrainedEncoder": "pretrained",
    "bundled_models": "locate",
    "check_encoder": "contract",
    "load_encoder": "loading",
    "model_types": "registry",
    "register_encoder": "registry",
}

__getattr__, __dir__ = resolve_late(__name__, _HOME, __all__)
