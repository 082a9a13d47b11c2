"""Code that a job names: ``module:callable``, or ``path/to/file.py:callable``, and a digest of what it makes.

Not covered by the digest: files that the named ones import, unless they hold the class of a module that is used.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from smoothcert.encoders.carried_code import place_of

_KNOWN_ELSEWHERE = ("torch", "smoothcert", "builtins", "abc")
"""Packages whose code is not hashed: Python's, torch's, whose version a run keeps, and our own, which it keeps too."""


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
    # named after its place: two files of one name are two modules
    name = f"{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
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


def digest_of(where: str, code: Iterable[object], modules: Iterable[torch.nn.Module]) -> str:
    """Hex sha256 of a callable's name, of the source files of ``code`` and of the modules' classes, and of all weights.

    The place of the files does not enter: a copy has the same digest.

    Args:
        where: as in a job.
        code: functions and classes.
        modules: all modules of a network, children included (a module that is named twice counts once).
    """
    digest = hashlib.sha256(where.rpartition(":")[2].encode())
    modules = list({id(module): module for module in modules}.values())
    for source in sorted({_source(part) for part in (*code, *(type(module) for module in modules))}):
        digest.update(hashlib.sha256(source).digest())
    for number, module in enumerate(modules):
        digest.update(f"{number} {type(module).__qualname__} {module.extra_repr()}".encode())
        own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        for key, tensor in sorted(own, key=lambda item: item[0]):
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _source(code: object) -> bytes:
    package = getattr(code, "__module__", None) or "builtins"
    if package.split(".")[0] in _KNOWN_ELSEWHERE:
        return b""
    try:
        source = inspect.getsourcefile(code)  # type: ignore[arg-type]  # what has none raises TypeError
    except TypeError:
        return b""
    return Path(source).read_bytes() if source and Path(source).is_file() else b""
