"""Encoders that the user's own code makes: ``encoder.model: module:callable``."""

from __future__ import annotations

import hashlib
import inspect

import torch

from smoothcert.encoders.base import Encoder
from smoothcert.encoders.explaining import missing_package
from smoothcert.encoders.factories import digest_of, import_callable
from smoothcert.errors import EncoderError
from smoothcert.job.encoder import EncoderSection


def make_encoder(section: EncoderSection, device: torch.device, dtype: torch.dtype) -> Encoder:
    """Call what ``encoder.model: module:callable`` names, and hold what it returns to what the job says.

    The callable gets ``device`` and ``dtype`` by name, where it has parameters of these names.

    Raises:
        EncoderError: it cannot be imported or called, returns no encoder, or one for another device or dtype.
    """
    field = f"encoder.model='{section.model}'"
    for name, value, default in (
        ("feature", section.feature, "projection"),
        ("size", section.size, None),
    ):
        if value != default:
            raise EncoderError(
                f"encoder.{name}={value!r} says nothing to {field}",
                remedy=f"choose the {name} in the code, and remove it",
            )
    try:
        factory = import_callable(section.model)
        accepted = inspect.signature(factory).parameters
        given = {name: value for name, value in (("device", device), ("dtype", dtype)) if name in accepted}
        encoder = factory(**given)
    except (EncoderError, torch.OutOfMemoryError):
        raise
    except Exception as exc:  # it is somebody else's code
        package = missing_package(exc)
        raise EncoderError(
            f"{field} made no encoder: {type(exc).__name__}: {exc}",
            remedy=f"install what it needs: pip install {package}"
            if package
            else "it must be importable here and on every worker, and its callable must work without arguments but "
            "device and dtype",
        ) from exc
    if not isinstance(encoder, Encoder):
        raise EncoderError(
            f"{field} returned {type(encoder).__name__}, not an Encoder",
            remedy="return smoothcert.encoders.ModuleEncoder(module, input_size=(height, width), mean=..., std=...), "
            "or a subclass of smoothcert.encoders.Encoder",
        )
    for name, asked, found in (
        ("device", device.type, encoder.device.type),
        ("dtype", section.dtype, str(encoder.dtype).removeprefix("torch.")),
    ):
        if asked != found:
            raise EncoderError(
                f"encoder.{name}: the job asks for {asked}, but {field} made an encoder on {found}",
                remedy=f"let the callable take {name} and use it, or set encoder.{name}: {found}",
            )
    encoder.name = section.model if encoder.name == "module" else encoder.name
    made = digest_of(section.model, (factory, type(encoder)), encoder.modules)
    encoder.digest = hashlib.sha256(f"{encoder.digest} {made}".encode()).hexdigest()
    return encoder
