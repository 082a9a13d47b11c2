"""Images that data names by path: where a path points, and reading the file."""

from __future__ import annotations

import errno
import posixpath

from fsspec.implementations.local import LocalFileSystem

from smoothcert.datasets.links import read_link
from smoothcert.datasets.stores import is_link, store_of
from smoothcert.errors import ReadError, SourceError
from smoothcert.storage.steady import read_whole, steadily

_OF_THE_PATH = {errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENXIO}


def resolve_path(path: str, folder: str) -> str:
    """Where an image path points: URLs and absolute paths as they are, others below ``folder``."""
    if "://" in path or path.startswith("/"):
        return path
    scheme, mark, below = folder.partition("://")
    if not mark:
        return posixpath.join(folder, path)
    return scheme + mark + posixpath.normpath(posixpath.join(below or "/", path))


def read_image_file(path: str, folder: str) -> bytes:
    """The bytes of an image file.

    Args:
        path: absolute, relative to ``folder``, or any fsspec URL.
        folder: where relative paths start.

    Raises:
        ReadError: this path cannot be read: it does not exist, is a directory, is forbidden, is no path, or is a link
            to the web that is dead.
        SourceError: the store itself fails, which concerns more than this pair.
    """
    uri = resolve_path(path, folder)
    if is_link(uri):
        return read_link(uri)
    try:
        fs, inner = store_of(uri)
    except ImportError as exc:
        raise SourceError(f"cannot read '{uri}': {exc}", remedy="install the file system's package") from exc
    except ValueError as exc:
        raise ReadError(f"'{uri}' cannot be read: {exc}", remedy="fix the path") from exc
    try:
        if isinstance(fs, LocalFileSystem):
            with open(inner, "rb") as stream:
                return stream.read()
        return steadily(lambda: read_whole(fs, inner), inner)
    except FileNotFoundError as exc:
        raise ReadError(f"'{uri}' does not exist", remedy="fix the path or restore the file") from exc
    except (PermissionError, IsADirectoryError, NotADirectoryError, ValueError) as exc:
        raise ReadError(f"'{uri}' cannot be read: {exc}", remedy="fix the path or its permissions") from exc
    except OSError as exc:
        of_the_disk = exc.errno == errno.EIO and isinstance(fs, LocalFileSystem)
        if of_the_disk or exc.errno in _OF_THE_PATH:
            raise ReadError(
                f"'{uri}' cannot be read: {exc}", remedy="fix the path or restore the file"
            ) from exc
        raise SourceError(f"cannot read '{uri}': {exc}", remedy="check that the store is reachable") from exc
    except Exception as exc:  # file systems are plug-ins with error types of their own
        reason = f"{type(exc).__name__}: {exc}"
        raise SourceError(
            f"cannot read '{uri}': {reason}", remedy="check that the store is reachable"
        ) from exc
