"""From what a job says about a defence to an encoder that is defended and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from smoothcert.defences.defended import DefendedEncoder
from smoothcert.defences.modules import KIND, MAPPERS, PURIFIERS, kind_of
from smoothcert.encoders import Encoder, check_encoder, load_encoder
from smoothcert.encoders.cache import fetch_file, is_url
from smoothcert.encoders.factories import digest_of, import_callable
from smoothcert.errors import EncoderError, SmoothcertError
from smoothcert.job.encoder import DefenceSection, EncoderSection


def load_defended(section: EncoderSection) -> Encoder:
    """Load and check the encoder of a job, with its purifier and mapper where it names them.

    Raises:
        EncoderError: it cannot be loaded, or breaks the contract.
    """
    base = load_encoder(section)
    return base if section.defence is None else defend(base, section.defence, base.name)


def defend(base: Encoder, section: DefenceSection, name: str) -> DefendedEncoder:
    """An encoder behind a defence, held to the contract of encoders.

    A file is read as safetensors. ``module:callable`` is imported and called with ``base``; it returns a
    ``torch.nn.Module``. The digest covers a file's bytes, or the factory's name, its source file and the weights.

    Raises:
        EncoderError: a part cannot be loaded, or together they break the contract.
    """
    purifier, first = _part(base, name, "purifier", section.purifier, PURIFIERS)
    mapper, second = _part(base, name, "mapper", section.mapper, MAPPERS)
    try:
        defended = DefendedEncoder(
            base, purifier=purifier, mapper=mapper, name=name, parts_digest=f"{first} {second}"
        )
        check_encoder(defended)
    except RuntimeError as exc:
        raise EncoderError(
            f"defence '{name}' does not fit encoder '{base.name}': {exc}",
            remedy="check the shapes of its weights",
        ) from exc
    return defended


def _part(
    base: Encoder, name: str, field: str, where: str | None, kinds: Mapping[str, type[torch.nn.Module]]
) -> tuple[torch.nn.Module | None, str]:
    if where is None:
        return None, "none"
    try:
        if where.endswith(".safetensors"):
            return _from_file(where, kinds, field)
        return _from_factory(where, base)
    except (SmoothcertError, torch.OutOfMemoryError):
        raise
    except Exception as exc:  # a damaged file, or whatever the named code raises
        raise EncoderError(
            f"defence '{name}': {field}='{where}' cannot be loaded: {type(exc).__name__}: {exc}",
            remedy="give a .safetensors file written by smoothcert.defences.save_module, or an importable "
            "module:callable that makes a torch module of the encoder",
        ) from exc


def _from_file(where: str, kinds: Mapping[str, type[Any]], field: str) -> tuple[torch.nn.Module, str]:
    place = fetch_file(where, field=field) if is_url(where) else Path(where).expanduser()
    data = place.read_bytes()
    tensors = safetensors.torch.load(data)
    kind = kind_of(data)
    if kind is None or kind not in kinds:
        raise ValueError(f"its metadata has {KIND}={kind!r}; expected {' or '.join(kinds)}")
    return kinds[kind](tensors), hashlib.sha256(data).hexdigest()


def _from_factory(where: str, base: Encoder) -> tuple[torch.nn.Module, str]:
    factory = import_callable(where)
    made = factory(base)
    if not isinstance(made, torch.nn.Module):
        raise TypeError(f"it returned {type(made).__name__}, not a torch.nn.Module")
    return made, digest_of(where, (factory, type(made)), made.modules())
