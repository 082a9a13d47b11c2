"""From the job's URIs to files: listing, opening and naming over fsspec, and one seam for store trouble."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from smoothcert.datasets.listing import MARKS, FoundFiles, OnLeftOut, braces, files_in, files_like
from smoothcert.datasets.stores import is_link, store_of
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


def list_files(
    uris: Sequence[str],
    suffixes: Collection[str],
    *,
    recursive: bool = True,
    on_left_out: OnLeftOut | None = None,
) -> list[ListedFile]:
    """Every file that the URIs mean.

    A file stands for itself, a directory for its files with one of ``suffixes`` (sorted by path; names that
    begin with '.' or '_' are left out, as engines write such files beside data), a glob for its matches
    (sorted; such names only if the pattern spells them), ``{a,b}`` and ``{000..012}`` for each of these names. A
    list keeps its order. Folders that are links are entered.

    Args:
        uris: the job's ``data.uri``.
        suffixes: what a directory's files must end in to be taken.
        recursive: whether directories are searched to any depth.
        on_left_out: called with kind, path and reason for each file or folder that was seen and not taken.

    Raises:
        SourceError: a URI means nothing, the same file is meant twice, or the store cannot be reached.
    """
    if not uris:
        raise SourceError("data.uri is an empty list", remedy="give at least one file, directory or glob")
    found: FoundFiles = {}
    for uri in _meant(uris):
        with store_trouble(uri, "list"):
            listed, left_out = steadily(partial(_listed, uri, suffixes, recursive), uri)
            for entry in left_out:
                if on_left_out is not None:
                    on_left_out(*entry)
            for path, size in listed.items():
                if path in found:
                    raise SourceError(
                        f"data.uri matches the file '{path}' twice",
                        remedy="list every file once: each pair must become exactly one row",
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
    fs, path = store_of(uri)
    if isinstance(fs, LocalFileSystem):
        return open(path, "rb")  # the same file without fsspec's wrapper: archives are many small reads
    if is_link(uri) and not _in_pieces(fs, path):
        return io.BytesIO(bytes(steadily(lambda: fs.cat_file(path), path)))
    return io.BufferedReader(SteadyFile(fs, path), ahead_bytes)


def _in_pieces(fs: Any, path: str) -> bool:
    """Whether a web server says how long a file is, and that it gives pieces of it."""
    info = steadily(lambda: fs.info(path), path)
    return info.get("size") is not None and bool(info.get("partial"))


def local_path(uri: str) -> str | None:
    """The absolute path of a file of this machine, None for other stores."""
    fs, path = store_of(uri)
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
        return "check data.uri; relative paths are relative to the working directory"
    if isinstance(exc, PermissionError) or "redential" in type(exc).__name__:
        return "check the permissions, or the store's credentials (environment, profile or instance role)"
    if isinstance(exc, ImportError):
        package = " (s3fs for s3://)" if uri.startswith("s3") else ""
        return f"install the file system's package{package}"
    if isinstance(exc, ValueError) and "rotocol" in str(exc):
        scheme = uri.partition("://")[0]
        return f"use a protocol that fsspec knows{did_you_mean(scheme, fsspec.available_protocols())}"
    return "check that the store is reachable and the file is complete"


def _meant(uris: Sequence[str]) -> Iterator[str]:
    """The URIs with their braces expanded, but for files that have braces in their names."""
    for uri in uris:
        with store_trouble(uri, "list"):
            names = [uri] if "{" not in uri or _exists(uri) else list(braces(uri))
        yield from names


def _exists(uri: str) -> bool:
    fs, path = store_of(uri)
    return info_of(fs, path) is not None


def _listed(
    uri: str, suffixes: Collection[str], recursive: bool
) -> tuple[FoundFiles, list[tuple[str, str, str]]]:
    """Files of one URI, and (kind, path, reason) of what else was seen."""
    left_out: list[tuple[str, str, str]] = []

    def told(kind: str, path: str, reason: str) -> None:
        left_out.append((kind, path, reason))

    fs, path = store_of(uri)
    fs.invalidate_cache()  # a long-lived process may remember an older listing
    found = info_of(fs, path)
    if found is not None and found["type"] == "file":  # before globs: a name may hold brackets
        chosen = {path: found.get("size")}
    elif found is not None:
        chosen, others = files_in(fs, path, suffixes, recursive=recursive, told=told)
        if not chosen:
            folders = [] if others or left_out else _folders(fs, path)
            deeper = "name these folders or their files in data.uri" if folders and not recursive else ""
            raise SourceError(
                f"directory '{uri}' has no {' or '.join(sorted(suffixes))} file{_instead(others, left_out, folders)}",
                remedy=deeper or "check data.uri and data.format",
            )
    elif any(mark in path for mark in MARKS):
        chosen = files_like(fs, path, told)
        if not chosen:
            raise SourceError(f"the glob '{uri}' matches no files", remedy="check data.uri")
    else:
        raise FileNotFoundError(path)
    return {_absolute(fs, each): size for each, size in chosen.items()}, left_out


def _folders(fs: Any, path: str) -> list[str]:
    """Names of the folders in a folder."""
    entries = steadily(lambda: fs.ls(path, detail=True), path)
    return sorted(
        each["name"].rstrip("/").rpartition("/")[2] for each in entries if each["type"] == "directory"
    )


def _instead(others: Sequence[str], left_out: Sequence[tuple[str, str, str]], folders: Sequence[str]) -> str:
    if others:
        return f", only files with suffix {', '.join(others[:8])}"
    if left_out:
        kind, path, reason = left_out[0]
        more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        return f", only the {kind} '{path}' ({reason}){more}"
    if folders:
        more = f" and {len(folders) - 3} more" if len(folders) > 3 else ""
        return f": there are only folders in it, which hold none ({', '.join(folders[:3])}{more})"
    return ": it is empty"


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
