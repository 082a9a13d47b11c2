"""The user's own Python files behind an encoder or a defence: those that define it, and what these import of his own.

Imports are read from the files, those inside functions and under conditions too. A file that imports by names made
while it runs (importlib, pkgutil, runpy, builtins, exec, eval) counts with every Python file of its folder. Of an
installed package that defines the callable or a class of the network, the version and that file count. Not covered:
other installed packages, and data that code reads, unless it ends in weights.
"""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from weakref import WeakKeyDictionary

from smoothcert.encoders.carried_code import code_files
from smoothcert.errors import EncoderError

_KNOWN_ELSEWHERE = ("torch", "smoothcert", "builtins", "abc")
"""Not hashed: Python's code, torch's, whose version a run keeps, and our own, which it keeps too."""
_BY_NAME = frozenset(
    {"importlib", "importlib.util", "importlib.machinery", "pkgutil", "runpy", "builtins"}
    | {"__import__", "exec", "eval"}
)
"""Where a file uses one of these, the files that it imports cannot be read from it."""
_SEEN: WeakKeyDictionary[ModuleType, str] = WeakKeyDictionary()
"""Of this process: the digest of each module's file when it was first met."""


def sources_behind(modules: Iterable[str]) -> list[str]:
    """One line for each file and package that the named modules rest on: its name and digest, or its version; sorted.

    The place of the files does not enter: a copy of the folder gives the same lines.

    Args:
        modules: names as in ``sys.modules``.

    Raises:
        EncoderError: a file changed since it was imported here, or a module of the same name was imported from another
            folder: what runs is not what is there.
        OSError: a file cannot be read.
    """
    lines: set[str] = set()
    waiting = [name for name in sorted(set(modules)) if name.split(".")[0] not in _KNOWN_ELSEWHERE]
    met = set(waiting)
    while waiting:
        name = waiting.pop()
        file = _file_of(name)
        if file is None or _is_pythons(file):
            continue
        if _is_installed(file):
            lines.add(_version_of(name.split(".")[0]))
        root = _root_of(name, file)
        lines.add(_line(root, file, _refuse_changed(name, file)))
        if _is_installed(file) or file.suffix != ".py":
            continue
        imported, by_name = _imports(name, file)
        if by_name:
            lines.update(_line(root, path, path.read_bytes()) for path in code_files(file.parent))
        for other in sorted(imported - met):
            if other.split(".")[0] not in _KNOWN_ELSEWHERE and _is_own(other, root, file):
                waiting.append(other)
        met |= imported
    return sorted(lines)


def _root_of(name: str, file: Path) -> Path:
    """The folder from which a module is imported by its name."""
    return file.parents[name.count(".") + (file.name == "__init__.py")]


def _line(root: Path, file: Path, content: bytes) -> str:
    """A file's name, from the folder that it is imported from, and the digest of its content."""
    return f"{file.relative_to(root).as_posix()} {hashlib.sha256(content).hexdigest()}"


def _refuse_changed(name: str, file: Path) -> bytes:
    """The content of a module's file; ``EncoderError`` where it is no longer what this process imported."""
    content = file.read_bytes()
    module, now = sys.modules.get(name), hashlib.sha256(content).hexdigest()
    if module is not None and _SEEN.setdefault(module, now) != now:
        raise EncoderError(
            f"'{file}' has changed since it was imported; this process still runs what it was",
            remedy="start again in a new process",
        )
    return content


def _is_own(name: str, root: Path, importing: Path) -> bool:
    """Whether a module that a file imports is a file of the user's own.

    Raises:
        EncoderError: it is, but not the one in the folder ``root`` that the importing file itself is imported from.
    """
    file = _file_of(name)
    if file is None or _is_pythons(file) or _is_installed(file):
        return False
    top = root / name.split(".")[0]
    beside = next((path for path in (top / "__init__.py", top.with_suffix(".py")) if path.is_file()), None)
    first = _file_of(name.split(".")[0])
    if beside is not None and first is not None and beside.resolve() != first.resolve():
        raise EncoderError(
            f"'{importing}' imports '{name.split('.')[0]}', which is '{first}' in this process and not '{beside}'",
            remedy="give one of the two another name",
        )
    return True


def _file_of(name: str) -> Path | None:
    """The file of a module: where it was imported from, or would be; nothing is imported."""
    module = sys.modules.get(name)
    if module is not None:
        found = getattr(module, "__file__", None)
    else:
        spec = _spec_of(name)
        found = spec.origin if spec is not None and spec.has_location else None
    return Path(found) if found and Path(found).is_file() else None


def _spec_of(name: str) -> ModuleSpec | None:
    """How a module would be imported; unlike importlib's, it does not import the packages that the module is in."""
    parent = name.rpartition(".")[0]
    if not parent:
        return PathFinder.find_spec(name)
    places = getattr(sys.modules.get(parent), "__path__", None)
    if places is None and parent not in sys.modules:
        package = _spec_of(parent)
        places = package.submodule_search_locations if package is not None else None
    return PathFinder.find_spec(name, list(places)) if places is not None else None


def _is_pythons(file: Path) -> bool:
    libraries = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    return not _is_installed(file) and any(file.is_relative_to(place) for place in libraries)


def _is_installed(file: Path) -> bool:
    return any(part in ("site-packages", "dist-packages") for part in file.parts)


@cache
def _version_of(package: str) -> str:
    names = metadata.packages_distributions().get(package, [])
    return " ".join([package, *(f"{name}=={metadata.version(name)}" for name in sorted(set(names)))])


def _imports(name: str, file: Path) -> tuple[set[str], bool]:
    """The names that a file may import, and whether it imports by names that it makes."""
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError):  # a file that only may be imported
        return set(), True
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    by_name = False
    for node in ast.walk(tree):
        found.update(_names_in(node, package))
        if file.name == "__init__.py":
            found.update(f"{name}.{each}" for each in _names_for_star(node))
        # model.eval() is nothing of the kind
        by_name |= isinstance(node, ast.Name) and node.id in _BY_NAME
        by_name |= isinstance(node, ast.Attribute) and node.attr == "import_module"
    by_name |= not _BY_NAME.isdisjoint(found)
    return {longer for each in found for longer in _with_parents(each)}, by_name


def _names_in(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            outer = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*outer, *([node.module] if node.module else [])])
        if base:
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")


def _names_for_star(node: ast.AST) -> Iterator[str]:
    """What ``__all__`` names: ``from package import *`` imports those of them that are modules."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
        for part in ast.walk(node):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[: length + 1]) for length in range(len(parts)))
