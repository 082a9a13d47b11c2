"""From the job's URIs to files: listing, opening and naming over fsspec, and one seam for store trouble."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from smoothcert.errors import SmoothcertError, SourceError, did_you_mean
from smoothcert.storage.steady import SteadyFile, info_of, steadily

READ_AHEAD_BYTES = 1 << 20
"""What a request to a store asks for at least: archives and text are many small reads."""


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file that exists: absolute ``uri``, ``name`` below the folder all files share, size if known."""

    uri: str
    name: str
    size_bytes: int | None


def list_files(uris: Sequence[str], suffixes: Collection[str], *, recursive: bool = True) -> list[ListedFile]:
    """Every file that the URIs mean.

    A file stands for itself, a directory for its files with one of ``suffixes`` (sorted by path; names that
    begin with '.' or '_' are left out, as engines write such files beside data), a glob for its matches
    (sorted; such names only if the pattern spells them). A list keeps its order.

    Raises:
        SourceError: a URI means nothing, the same file is meant twice, or the store cannot be reached.
    """
    if not uris:
        raise SourceError("data.uri is an empty list", remedy="name at least one file, directory or glob")
    found: dict[str, int | None] = {}
    for uri in uris:
        with store_trouble(uri, "list"):
            for path, size in steadily(partial(_listed, uri, suffixes, recursive)):
                if path in found:
                    raise SourceError(
                        f"data.uri means the file '{path}' twice",
                        remedy="name every file once: each pair must become exactly one row",
                    )
                found[path] = size
    names = _names(list(found))
    return [ListedFile(uri, name, size) for (uri, size), name in zip(found.items(), names, strict=True)]


def open_binary(uri: str, *, ahead_bytes: int = READ_AHEAD_BYTES) -> BinaryIO:
    """Open a file for reading; errors are the store's own (see ``store_trouble``).

    Args:
        uri: the file.
        ahead_bytes: what a request to a store asks for at least; files of this machine have no requests.
    """
    fs, path = url_to_fs(uri)
    if isinstance(fs, LocalFileSystem):
        return open(path, "rb")  # the same file without fsspec's wrapper: archives are many small reads
    return io.BufferedReader(SteadyFile(fs, path), ahead_bytes)


def local_path(uri: str) -> str | None:
    """The absolute path of a file of this machine, None for other stores."""
    fs, path = url_to_fs(uri)
    return path if isinstance(fs, LocalFileSystem) else None


def folder_of(uri: str) -> str:
    """The folder that holds the file."""
    return uri.rpartition("/")[0] or "/"


@contextmanager
def store_trouble(uri: str, doing: str) -> Iterator[None]:
    """Translate whatever a file system raises into a ``SourceError`` that names the URI.

    File systems are plug-ins and raise types of their own libraries, hence the broad catch.
    """
    try:
        yield
    except SmoothcertError:
        raise
    except Exception as exc:
        raise SourceError(f"cannot {doing} '{uri}': {_reason(exc)}", remedy=_remedy(uri, exc)) from exc


def _reason(exc: Exception) -> str:
    if isinstance(exc, FileNotFoundError):
        return "it does not exist"
    text = str(exc).strip().splitlines()
    return f"{type(exc).__name__}: {text[0]}" if text else type(exc).__name__


def _remedy(uri: str, exc: Exception) -> str:
    if isinstance(exc, FileNotFoundError):
        return "check data.uri; relative paths start at the working directory"
    if isinstance(exc, PermissionError) or "redential" in type(exc).__name__:
        return "check the permissions, or the store's credentials (environment, profile or instance role)"
    if isinstance(exc, ImportError):
        package = " (s3fs for s3://)" if uri.startswith("s3") else ""
        return f"install the file system's package{package}"
    if isinstance(exc, ValueError) and "rotocol" in str(exc):
        scheme = uri.partition("://")[0]
        return f"use a protocol that fsspec knows{did_you_mean(scheme, fsspec.available_protocols())}"
    return "check that the store is reachable and the file is whole"


def _listed(uri: str, suffixes: Collection[str], recursive: bool) -> list[tuple[str, int | None]]:
    return list(_expand(uri, suffixes, recursive))


def _expand(uri: str, suffixes: Collection[str], recursive: bool) -> Iterator[tuple[str, int | None]]:
    if "::" in uri:
        raise SourceError(
            f"data.uri '{uri}' chains file systems", remedy="name the store directly, e.g. s3://..."
        )
    fs, path = url_to_fs(uri)
    fs.invalidate_cache()  # a long-lived process may remember an older listing
    absolute = partial(_absolute, fs)
    found = info_of(fs, path)
    if found is not None and found["type"] == "file":  # before globs: a name may hold brackets
        yield absolute(path), found.get("size")
    elif found is not None:
        entries = fs.find(path, detail=True, maxdepth=None if recursive else 1)
        inside = {p: i for p, i in entries.items() if _visible(p, path) and i.get("type") != "directory"}
        chosen = sorted(p for p in inside if p.lower().endswith(tuple(suffixes)))
        if not chosen:
            seen = sorted({posixpath.splitext(p)[1] or "(none)" for p in inside})
            raise SourceError(
                f"directory '{uri}' holds no {' or '.join(sorted(suffixes))} file"
                + (f", only files with suffix {', '.join(seen[:8])}" if seen else ": it is empty"),
                remedy="check data.uri and data.format",
            )
        yield from ((absolute(p), inside[p].get("size")) for p in chosen)
    elif any(mark in path for mark in "*?["):
        # Up to its first wildcard the user named every folder; below, hidden names must be asked for.
        named = path[: min(path.find(mark) for mark in "*?[" if mark in path)].rpartition("/")[0]
        asked = not _visible(path, named)
        matches = {
            p: i
            for p, i in fs.glob(path, detail=True).items()
            if i.get("type") != "directory" and (asked or _visible(p, named))
        }
        if not matches:
            raise SourceError(f"the glob '{uri}' matches no file", remedy="check data.uri")
        yield from ((absolute(p), matches[p].get("size")) for p in sorted(matches))
    else:
        raise FileNotFoundError(path)


def _visible(path: str, root: str) -> bool:
    below = path[len(root) :] if path.startswith(root) else path
    return not any(part.startswith((".", "_")) for part in below.split("/"))


def _absolute(fs: Any, path: str) -> str:
    uri: str = path if isinstance(fs, LocalFileSystem) else fs.unstrip_protocol(path)
    try:
        uri.encode()
    except UnicodeEncodeError:
        raise SourceError(f"the file name {uri!r} is not valid UTF-8", remedy="rename the file") from None
    return uri


def _names(uris: list[str]) -> list[str]:
    parts = [uri.split("/") for uri in uris]
    folders = [p[:-1] for p in parts]
    first, last = min(folders, default=[]), max(folders, default=[])  # all others lie between these two
    shared = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last))
    )
    return ["/".join(p[shared:]) for p in parts]
