"""Defences: what stands before and behind an encoder, so that attacks and certificates see all of it (torch).

Names are resolved on first use, so that importing this package does not import torch. Room ``training`` fits the
conditioned ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoothcert.late_names import resolve_late

if TYPE_CHECKING:
    from smoothcert.defences.defended import DefendedEncoder
    from smoothcert.defences.loading import defend, load_defended
    from smoothcert.defences.modules import ConvolutionalPurifier, LinearMapper
    from smoothcert.defences.noise_level import TrainedFor
    from smoothcert.defences.residual_mapper import ResidualMapper
    from smoothcert.defences.saved import bundled_defences, read_part, save_module, save_part
    from smoothcert.defences.unet_purifier import UNetPurifier

__all__ = [
    "ConvolutionalPurifier",
    "DefendedEncoder",
    "LinearMapper",
    "ResidualMapper",
    "TrainedFor",
    "UNetPurifier",
    "bundled_defences",
    "defend",
    "load_defended",
    "read_part",
    "save_module",
    "save_part",
]

_HOME = {
    "ConvolutionalPurifier": "modules",
    "DefendedEncoder": "defended",
    "LinearMapper": "modules",
    "ResidualMapper": "residual_mapper",
    "TrainedFor": "noise_level",
    "UNetPurifier": "unet_purifier",
    "bundled_defences": "saved",
    "defend": "loading",
    "load_defended": "loading",
    "read_part": "saved",
    "save_module": "saved",
    "save_part": "saved",
}

__getattr__, __dir__ = resolve_late(__name__, _HOME, __all__)
