"""Code that a job names: ``module:callable``, or ``path/to/file.py:callable``, and a digest of what it makes."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from smoothcert.encoders.carried_code import place_of
from smoothcert.encoders.imported_code import sources_behind


def import_callable(where: str) -> Callable[..., Any]:
    """What ``where`` names, imported.

    A file's folder is put at the end of ``sys.path``, so that the file can import what lies beside it.

    Raises:
        ImportError: the module or the file is not there.
        AttributeError: it has no such attribute.
        TypeError: that is nothing to call.
        Exception: whatever the code raises while it is imported.
    """
    place, _, attribute = where.rpartition(":")
    module = _import_file(Path(place)) if place.endswith(".py") else import_module(place)
    found = getattr(module, attribute)
    if not callable(found):
        raise TypeError(f"'{attribute}' is {type(found).__name__}, which cannot be called")
    made: Callable[..., Any] = found
    return made


def _import_file(named: Path) -> ModuleType:
    path = place_of(named)
    if not path.is_file():
        raise ImportError(f"there is no file '{path}' here")
    name = _name_of(path)
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"'{path}' is not a Python file")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _name_of(path: Path) -> str:
    """A module's name after its place: two files of one name are two modules."""
    return f"{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"


def digest_of(where: str, code: Iterable[object], modules: Iterable[torch.nn.Module]) -> str:
    """Hex sha256 of a callable's name, of the files behind ``code`` and the modules' classes, and of all weights.

    Which files these are, ``imported_code`` says. Their place does not enter: a copy has the same digest.

    Args:
        where: as in a job.
        code: functions and classes.
        modules: all modules of a network, children included (a module that is named twice counts once).

    Raises:
        EncoderError: what was imported is no longer what the files hold.
    """
    place, _, attribute = where.rpartition(":")
    digest = hashlib.sha256(attribute.encode())
    modules = list({id(module): module for module in modules}.values())
    parts = (*code, *(type(module) for module in modules))
    names = {getattr(part, "__module__", None) or "builtins" for part in parts}
    # what is named may be an object of another file's class
    names.add(_name_of(place_of(Path(place))) if place.endswith(".py") else place or "builtins")
    for line in sources_behind(names):
        digest.update(f"{line}\n".encode())
    for number, module in enumerate(modules):
        digest.update(f"{number} {type(module).__qualname__} {module.extra_repr()}".encode())
        own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        for key, tensor in sorted(own, key=lambda item: item[0]):
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
