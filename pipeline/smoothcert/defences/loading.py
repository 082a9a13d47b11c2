"""From what a job says about a defence to an encoder that is defended and checked."""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass
from typing import Any

import torch

from smoothcert.defences.defended import DefendedEncoder, shape_of_tokens
from smoothcert.defences.diffusion import is_diffusion, read_diffusion
from smoothcert.defences.noise_level import AtSigma, TrainedFor
from smoothcert.defences.saved import DamagedPartError, read_part
from smoothcert.encoders import Encoder, check_encoder, load_encoder
from smoothcert.encoders.factories import digest_of, import_callable
from smoothcert.errors import EncoderError, SmoothcertError
from smoothcert.job.encoder import DefenceSection, EncoderSection, names_code


def load_defended(
    section: EncoderSection, sigma: float | None = None, base: Encoder | None = None
) -> Encoder:
    """Load and check the encoder of a job, with its purifier and mapper where it names them.

    Args:
        section: of the job.
        sigma: of the job's noise, which parts may be conditioned on.
        base: the encoder without them, where it is loaded already; it is not changed.

    Raises:
        EncoderError: it cannot be loaded, or breaks the contract.
    """
    base = base or load_encoder(section)
    if section.defence is None:
        return base
    return defend(base, section.defence, section.defence.label, sigma)


def defend(base: Encoder, section: DefenceSection, name: str, sigma: float | None = None) -> DefendedEncoder:
    """An encoder behind a defence, held to the contract of encoders.

    A file or directory is read as ``saved`` says, a folder in the layout of ``diffusers`` as ``diffusion`` says.
    ``module:callable`` is imported and called with ``base``, and with ``sigma`` where it has a parameter of that name;
    it returns a ``torch.nn.Module``. The digest covers files' bytes, or the factory's name, its source file and the
    weights; and sigma, where a part depends on it.

    Args:
        base: the encoder.
        section: names the parts.
        name: the defence's own name, for messages.
        sigma: noise level, units of [0,1] pixels, that parts are conditioned on.

    Raises:
        EncoderError: a part cannot be loaded, or together they break the contract.
    """
    parts = {
        field: _load(base, name, field, where, sigma)
        for field in ("purifier", "mapper")
        if (where := getattr(section, field)) is not None
    }
    modules: dict[str, torch.nn.Module | None] = {"purifier": None, "mapper": None}
    modules |= {field: part.module for field, part in parts.items()}
    notes = tuple(
        note
        for field, part in parts.items()
        for note in (_range_note(name, field, part, sigma), _encoder_note(name, field, part, base))
        if note is not None
    )
    defended = DefendedEncoder(
        base,
        purifier=modules["purifier"],
        mapper=modules["mapper"],
        name=name,
        parts_digest=" ".join(parts[f].digest if f in parts else "none" for f in modules),
    )
    check_encoder(defended)
    defended.notes = notes
    return defended


@dataclass(frozen=True, slots=True)
class _LoadedPart:
    module: torch.nn.Module
    digest: str
    trained: TrainedFor | None = None


def _load(base: Encoder, name: str, field: str, where: str, sigma: float | None) -> _LoadedPart:
    try:
        return _load_part(base, field, where, sigma)
    except EncoderError as exc:
        raise EncoderError(f"defence '{name}': {exc.message}", remedy=exc.remedy) from exc


def _load_part(base: Encoder, field: str, where: str, sigma: float | None) -> _LoadedPart:
    try:
        if names_code(where):
            return _from_factory(where, base, sigma)
        if field == "purifier" and is_diffusion(where):
            purifier, digest = read_diffusion(where, _level(field, sigma))
            _refuse_other_size(purifier, base, field, where)
            return _LoadedPart(purifier, f"{digest} at {sigma!r}")
        saved = read_part(where, field)
    except (SmoothcertError, torch.OutOfMemoryError):
        raise
    except DamagedPartError as exc:
        raise EncoderError(
            f"{field}='{where}' cannot be loaded: {exc}",
            remedy="name what smoothcert train or smoothcert.defences wrote; where it was cut short, make it anew",
        ) from exc
    except Exception as exc:  # a file that cannot be read, or whatever the named code raises
        raise EncoderError(
            f"{field}='{where}' cannot be loaded: {type(exc).__name__}: {exc}",
            remedy="give a directory that smoothcert train wrote, a .safetensors file that smoothcert.defences wrote, "
            "a model of diffusers as purifier, or an importable module:callable that makes a torch module of the "
            "encoder",
        ) from exc
    _refuse_other_size(saved.module, base, field, where)
    if not getattr(saved.module, "conditioned", False):
        return _LoadedPart(saved.module, saved.digest, saved.trained)
    level = _level(field, sigma)
    return _LoadedPart(
        AtSigma(saved.module, level, saved.trained), f"{saved.digest} at {level!r}", saved.trained
    )


def _level(field: str, sigma: float | None) -> float:
    if sigma is None:
        raise EncoderError(
            f"its {field} depends on the noise level, and none is given",
            remedy="give sigma, of the noise that is added to images",
        )
    return sigma


def _from_factory(where: str, base: Encoder, sigma: float | None) -> _LoadedPart:
    factory = import_callable(where)
    wants_sigma = "sigma" in inspect.signature(factory).parameters
    made = factory(base, sigma=sigma) if wants_sigma else factory(base)
    if not isinstance(made, torch.nn.Module):
        raise TypeError(f"it returned {type(made).__name__}, not a torch.nn.Module")
    digest = digest_of(where, (factory, type(made)), made.modules())
    if wants_sigma:
        digest = hashlib.sha256(f"{digest} at {sigma!r}".encode()).hexdigest()
    return _LoadedPart(made, digest)


def _refuse_other_size(module: Any, base: Encoder, field: str, where: str) -> None:
    """Raise ``EncoderError`` for a part that says what it was made for, where that is something else or not there."""
    size = getattr(module, "input_size", None)
    if size is not None and tuple(size) != base.input_size:
        raise EncoderError(
            f"{field}='{where}' was made for images of {size[0]}x{size[1]}, encoder "
            f"'{base.name}' reads {base.input_size[0]}x{base.input_size[1]}",
            remedy="take one of this size, or train one for this encoder with smoothcert train",
        )
    width = getattr(module, "feature_dim", None)
    if width is None:
        return
    tokens = getattr(module, "tokens", False)
    what, wanted = ("tokens", shape_of_tokens(base)[-1]) if tokens else ("features", base.feature_dim)
    if width != wanted:
        raise EncoderError(
            f"{field}='{where}' was made for {what} of size {width}, those of encoder '{base.name}' have {wanted}",
            remedy="train one for this encoder with smoothcert train",
        )


def _range_note(name: str, field: str, part: _LoadedPart, sigma: float | None) -> str | None:
    if part.trained is None or sigma is None or part.trained.covers(sigma):
        return None
    low, high = part.trained.sigma
    trained = f"sigma {low:g}" if low == high else f"sigma {low:g} to {high:g}"
    return (
        f"defence '{name}': its {field} was trained for {trained} and is used at {sigma:g}; certificates hold, but "
        "expect lower ones than after training for this level"
    )


def _encoder_note(name: str, field: str, part: _LoadedPart, base: Encoder) -> str | None:
    if part.trained is None or part.trained.encoder_digest in ("", base.digest):
        return None
    return (
        f"defence '{name}': its {field} was trained for another encoder than '{base.name}' (digest "
        f"{part.trained.encoder_digest[:12]}); certificates hold, but expect lower ones than after training for it"
    )
