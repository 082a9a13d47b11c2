"""How parts of a defence are kept: safetensors files that say what they hold and what they were trained for.

    <directory>/purifier.safetensors     either may be missing
                mapper.safetensors
                README.md                the model card, for people; nothing reads it

A file's metadata has the kind of its module (key ``smoothcert``), the module's settings and, where it was trained, for
what; so a file can be named by itself, and its digest covers all of it. ``bundled:<name>`` is a directory of this
package.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from smoothcert.defences.modules import ConvolutionalPurifier, LinearMapper
from smoothcert.defences.noise_level import TrainedFor
from smoothcert.defences.residual_mapper import ResidualMapper
from smoothcert.defences.unet_purifier import UNetPurifier
from smoothcert.encoders.cache import fetch_file, is_url
from smoothcert.errors import EncoderError, did_you_mean
from smoothcert.job.encoder import BUNDLED

KIND = "smoothcert"
"""Key of a file's metadata; its value says which module the file holds."""
_SETTINGS, _TRAINED = "settings", "trained"

PURIFIERS: Mapping[str, Any] = {each.kind: each for each in (UNetPurifier, ConvolutionalPurifier)}
MAPPERS: Mapping[str, Any] = {each.kind: each for each in (ResidualMapper, LinearMapper)}
PARTS: Mapping[str, Mapping[str, Any]] = {"purifier": PURIFIERS, "mapper": MAPPERS}
"""Classes that a file may hold, by field of a job and by kind."""


class DamagedPartError(ValueError):
    """A file does not hold what it should; the message completes a sentence about it."""


@dataclass(frozen=True, slots=True)
class SavedPart:
    """A part as a file holds it.

    Attributes:
        module: in evaluation mode.
        digest: hex sha256 of the file's tensors and metadata.
        trained: None where the file does not say.
    """

    module: torch.nn.Module
    digest: str
    trained: TrainedFor | None


def save_module(path: Path, kind: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write the tensors of a module without settings where a job can name them.

    Args:
        path: a new file that ends in .safetensors.
        kind: ``ConvolutionalPurifier.kind`` or ``LinearMapper.kind``.
        tensors: as the module's constructor takes them, which is tried first.

    Raises:
        ValueError: the kind is unknown, or the tensors do not fit together.
    """
    known: dict[str, type[ConvolutionalPurifier] | type[LinearMapper]] = {
        ConvolutionalPurifier.kind: ConvolutionalPurifier,
        LinearMapper.kind: LinearMapper,
    }
    if kind not in known:
        raise ValueError(f"kind '{kind}' is unknown; use one of {', '.join(known)}")
    known[kind](tensors)
    path.write_bytes(
        safetensors.torch.save({name: t.contiguous() for name, t in tensors.items()}, {KIND: kind})
    )


def part_bytes(module: Any, trained: TrainedFor | None = None) -> bytes:
    """The content of a file with a module of this package that has settings."""
    metadata = {KIND: module.kind, _SETTINGS: json.dumps(module.settings)}
    if trained is not None:
        metadata[_TRAINED] = json.dumps(asdict(trained))
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    data: bytes = safetensors.torch.save(tensors, metadata)
    return data


def save_part(path: str | PathLike[str], module: Any, trained: TrainedFor | None = None) -> None:
    """Write a ``UNetPurifier`` or ``ResidualMapper`` where a job can name it: a file that ends in .safetensors."""
    Path(fspath(path)).write_bytes(part_bytes(module, trained))


def read_part(where: str, part: str) -> SavedPart:
    """What a job's field names.

    Args:
        where: a .safetensors file, a directory that holds ``<part>.safetensors``, or ``bundled:<name>``.
        part: ``purifier`` or ``mapper``.

    Raises:
        EncoderError: there is no such bundled defence.
        OSError: the file cannot be read.
        DamagedPartError: it holds something else, or is damaged.
    """
    kinds = PARTS[part]
    file = file_of(where, part)
    data = (fetch_file(file, field=part) if is_url(file) else Path(file).expanduser()).read_bytes()
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as exc:
        raise DamagedPartError(f"it is damaged or cut short ({len(data):,} bytes: {exc})") from exc
    metadata = _metadata(data)
    kind = metadata.get(KIND)
    if kind is None or kind not in kinds:
        other = next((each for each, known in PARTS.items() if kind in known), None)
        what = f"a {other}" if other else f"{KIND}={kind!r} in its metadata"
        raise DamagedPartError(f"it holds {what}; a {part} ({' or '.join(kinds)}) is needed")
    try:
        module = kinds[kind].restore(tensors, json.loads(metadata.get(_SETTINGS, "{}")))
        trained = _trained(metadata.get(_TRAINED))
    except (RuntimeError, TypeError, KeyError, ValueError) as exc:  # not this module's tensors or settings
        raise DamagedPartError(f"its content is not that of a {kind}: {exc}") from exc
    module.eval().requires_grad_(False)
    return SavedPart(module, _digest(data), trained)


def file_of(where: str, part: str) -> str:
    """The file behind a field of a job: ``where`` itself, or the one of a directory.

    Raises:
        EncoderError: there is no such bundled defence.
    """
    if where.endswith(".safetensors"):
        return where
    if not where.startswith(BUNDLED):
        return f"{where.rstrip('/')}/{part}.safetensors"
    known = bundled_defences()
    if where not in known:
        raise EncoderError(
            f"{part}='{where}' is not bundled{did_you_mean(where, known)}",
            remedy=f"use one of the bundled defences: {', '.join(known)}",
        )
    return str(_bundled_root() / where.removeprefix(BUNDLED) / f"{part}.safetensors")


def bundled_defences() -> list[str]:
    """Names of the defences that ship with the package, as a job writes them."""
    root = _bundled_root()
    return (
        sorted(f"{BUNDLED}{path.name}" for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    )


def _bundled_root() -> Path:
    return Path(str(files("smoothcert.defences") / "bundled"))


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where its tensors begin."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), end


def _metadata(data: bytes) -> Mapping[str, str]:
    found = _header(data)[0].get("__metadata__", {})
    return found if isinstance(found, dict) else {}


def _digest(data: bytes) -> str:
    """Of the content: safetensors writes metadata in an order of its own each time."""
    header, end = _header(data)
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode() + b"\0" + data[end:]).hexdigest()


def _trained(text: str | None) -> TrainedFor | None:
    if text is None:
        return None
    fields = json.loads(text)
    sigma: Sequence[float] = fields.pop("sigma")
    return TrainedFor(sigma=(float(sigma[0]), float(sigma[1])), **fields)
