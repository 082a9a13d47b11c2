"""The files below a folder or behind a pattern; folders that are links are entered, once each."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from smoothcert.errors import SourceError

OnLeftOut = Callable[[str, str, str], object]
"""Called with kind (``file`` or ``folder``), path and reason."""

FoundFiles = dict[str, int | None]
"""Path of each file -> its size, if the store says."""

Enter = Callable[[str], bool]
"""Whether to enter a folder."""

MARKS = "*?["
_HIDDEN = "its name begins with '.' or '_'"
_MOST_BRACES = 1_000_000


def files_in(
    fs: Any, folder: str, suffixes: Collection[str], *, recursive: bool, told: OnLeftOut
) -> tuple[FoundFiles, list[str]]:
    """Files of a folder that end in one of ``suffixes``, sorted; and the suffixes of the others."""
    inside = _walk(fs, folder, None if recursive else 1, told, hidden=False)
    chosen: FoundFiles = {}
    others: set[str] = set()
    wanted = " or ".join(sorted(suffixes))
    for path in sorted(inside):
        if path.lower().endswith(tuple(suffixes)):
            chosen[path] = inside[path]
        else:
            others.add(posixpath.splitext(path)[1] or "(none)")
            told("file", path, f"its name does not end in {wanted}")
    return chosen, sorted(others)


def files_like(fs: Any, pattern: str, told: OnLeftOut) -> FoundFiles:
    """Files that a pattern matches, sorted. Hidden names only if the pattern spells them."""
    named = pattern[: min(pattern.find(mark) for mark in MARKS if mark in pattern)].rpartition("/")[0]
    rest = pattern[len(named) :]
    asked = not visible(pattern, named)
    depth = None if "**" in rest else rest.strip("/").count("/") + 1
    matches = re.compile(glob_translate(pattern)).match
    inside = _walk(fs, named or "/", depth, told, hidden=asked, enter=_enterable(pattern, named))
    return {path: inside[path] for path in sorted(inside) if matches(path)}


def braces(uri: str) -> Iterator[str]:
    """What ``{a,b}`` and ``{000..012}`` in a URI stand for, in order; the URI itself where there is none.

    Raises:
        SourceError: they stand for more than a million names.
    """
    names = _braces(uri)
    yield from islice(names, _MOST_BRACES)
    if next(names, None) is not None:
        raise SourceError(
            f"data.uri '{uri}' stands for more than {_MOST_BRACES} files", remedy="name a directory or a glob"
        )


def visible(path: str, root: str) -> bool:
    """Whether no part of a path below ``root`` begins with '.' or '_', as files beside data do."""
    below = path[len(root) :] if path.startswith(root) else path
    return not any(part.startswith((".", "_")) for part in below.split("/"))


def _braces(uri: str) -> Iterator[str]:
    found = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", uri)
    if found is None:
        yield uri
        return
    first, last, words = found.groups()
    if words is not None:
        values: Iterator[str] = iter(words.split(","))
    else:
        width = len(first) if len(first) > 1 and "0" in (first[0], last[0]) else 0
        step = 1 if int(first) <= int(last) else -1
        values = (str(number).zfill(width) for number in range(int(first), int(last) + step, step))
    for value in values:
        yield from _braces(uri[: found.start()] + value + uri[found.end() :])


def _walk(
    fs: Any, folder: str, depth: int | None, told: OnLeftOut, *, hidden: bool, enter: Enter | None = None
) -> FoundFiles:
    """Path and size of every file below a folder, to a depth (1: the folder alone).

    Args:
        fs: the store.
        folder: where to begin.
        depth: how deep, None for any depth.
        told: called with what is not entered or is no file.
        hidden: take hidden names too.
        enter: which folders to enter; without it everything was asked for, with it only what links hide is said.
    """
    say: OnLeftOut = told if enter is None else _unsaid
    if isinstance(fs, LocalFileSystem):
        return _walk_disk(folder.rstrip("/") or "/", depth, told, say, hidden, enter or _everywhere)
    found: FoundFiles = {}
    for path, info in fs.find(folder, detail=True, maxdepth=depth).items():
        if info.get("type") == "directory":
            continue
        if hidden or visible(path, folder):
            found[path] = info.get("size")
        else:
            say("file", path, _HIDDEN)
    return found


def _walk_disk(
    folder: str, depth: int | None, told: OnLeftOut, say: OnLeftOut, hidden: bool, enter: Enter
) -> FoundFiles:
    found: FoundFiles = {}
    entered: set[str] = set()
    waiting = [(folder, depth)]
    links: list[tuple[str, int | None]] = []
    while waiting or links:
        # links come last: what is below the folder itself keeps its own path
        path, left = waiting.pop() if waiting else links.pop(0)
        real = os.path.realpath(path)
        if real in entered:
            told("folder", path, "it is a link to a folder that is read already")
            continue
        entered.add(real)
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                inner = posixpath.join(path, entry.name)
                if not hidden and entry.name.startswith((".", "_")):
                    say("folder" if entry.is_dir() else "file", inner, _HIDDEN)
                elif entry.is_file():
                    found[inner] = entry.stat().st_size
                elif not entry.is_dir():
                    reason = "it is a link to nothing" if entry.is_symlink() else "it is not a regular file"
                    told("file", inner, reason)
                elif left is not None and left <= 1:
                    say("folder", inner, "folders inside are not searched in this format")
                elif enter(inner):
                    below = None if left is None else left - 1
                    (links if entry.is_symlink() else waiting).append((inner, below))
    return found


def _enterable(pattern: str, named: str) -> Enter:
    """Whether files that the pattern matches may lie in a folder: else nobody need be allowed to enter it."""
    parts = pattern[len(named) :].strip("/").split("/")
    fixed = next((number for number, part in enumerate(parts) if "**" in part), len(parts) - 1)
    matches = [re.compile(glob_translate("/".join([named, *parts[: i + 1]]))).match for i in range(fixed)]

    def enter(folder: str) -> bool:
        level = folder[len(named) :].strip("/").count("/")
        return level >= len(matches) or matches[level](folder) is not None

    return enter


def _everywhere(folder: str) -> bool:
    del folder
    return True


def _unsaid(kind: str, path: str, reason: str) -> None:
    del kind, path, reason
