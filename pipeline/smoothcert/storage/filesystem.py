"""The one place through which results reach storage: any fsspec URL, one set of guarantees and errors.

Three guarantees matter to the rest of the store and are made here:

* ``create`` makes a file exactly once, whole or not at all, whoever else tries: a hard link on local disks, a
  lock for memory://, a conditional put on object stores that have it;
* ``replace`` never shows a half-written file;
* a request that fails for a passing reason is sent again, and an answer that was cut is noticed (steady.py).

Where a store cannot do the first, one committer must do all commits (see store/commits.py).
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import os
import tempfile
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import pyarrow
import pyarrow.fs

from smoothcert.errors import StoreError
from smoothcert.storage.foreign_errors import translate
from smoothcert.storage.options import of_results
from smoothcert.storage.steady import SteadyFile, info_of, is_transient, read_whole, steadily

T = TypeVar("T")

_CONDITIONAL_PUT = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})
"""Protocols whose fsspec implementation sends "only if absent" to the store; others only imitate it."""

_MEMORY_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a directory: its name there, its size in bytes, and when it was last written."""

    name: str
    size: int
    modified: datetime | None


class Storage:
    """A directory on any file system; all paths given to its methods are relative to it, with '/' between.

    Args:
        url: a local path, or an fsspec URL such as ``s3://bucket/runs/a`` or ``memory://runs/a``.

    Raises:
        StoreError: the URL is not valid, or the library for it is not installed.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        text = os.fspath(url)
        protocol = text.partition("://")[0] if "://" in text else "file"
        if protocol in ("file", "local"):
            # chained and odd names ("a::b", "a b", "a#b") are plain names on a local disk
            text = str(Path(text.removeprefix("file://").removeprefix("local://")).expanduser().absolute())
            self.fs: Any = fsspec.filesystem("file")
            self.root = text
        else:
            with self._translating("open", text):
                try:
                    self.fs, self.root = fsspec.core.url_to_fs(text, **of_results(protocol))
                except ValueError as exc:
                    raise StoreError(
                        f"'{text}' is not a URL that can be opened: {exc}",
                        remedy="write it like s3://bucket/runs, gs://bucket/runs or /data/runs",
                    ) from exc
            self.root = self.root.rstrip("/")
        self.url = text.rstrip("/") or "/"
        self.local = protocol in ("file", "local")
        self._protocol = protocol

    def __repr__(self) -> str:
        return f"Storage({self.url!r})"

    def path(self, relative: str) -> str:
        """The path of a file as its file system knows it."""
        return f"{self.root}/{relative}" if relative else self.root

    def full_url(self, relative: str) -> str:
        """The URL of a file as a user knows it."""
        return f"{self.url}/{relative}" if relative else self.url

    # reading

    def read(self, relative: str) -> bytes:
        """All bytes of a file.

        Raises:
            StoreError: it is missing or cannot be read.
        """
        return self._call("read", relative, self._bytes_of)

    def read_if_present(self, relative: str) -> bytes | None:
        """All bytes of a file, or ``None`` where there is none."""
        return self._call("read", relative, lambda path: _unless_missing(lambda: self._bytes_of(path)))

    def read_many(self, relatives: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """The bytes of many small files; requests overlap on object stores."""
        names = list(relatives)
        if self.local or self._memory or len(names) < 2:
            yield from ((name, self.read(name)) for name in names)
            return
        with ThreadPoolExecutor(max_workers=min(16, len(names))) as pool:
            yield from zip(names, pool.map(self.read, names), strict=True)

    def names(self, directory: str) -> list[str]:
        """Names of the files in a directory, sorted; none where the directory does not exist."""

        def listing(path: str) -> list[str]:
            if self.local:
                return _unless_missing(lambda: os.listdir(path)) or []
            found = _unless_missing(lambda: self.fs.ls(path, detail=False)) or []
            return [
                str(name).rstrip("/").rpartition("/")[2] for name in found if str(name).rstrip("/") != path
            ]

        return sorted(self._call("list", directory, listing))

    def folders(self, directory: str) -> list[str]:
        """Names of the directories in a directory, links to directories included, sorted; none where it is none."""

        def listing(path: str) -> list[str]:
            if self.local:
                here = _unless_missing(lambda: os.listdir(path)) or []
                return [name for name in here if os.path.isdir(f"{path}/{name}")]
            found = _unless_missing(lambda: self.fs.ls(path, detail=True)) or []
            names = (str(item["name"]).rstrip("/") for item in found if item["type"] == "directory")
            return [name.rpartition("/")[2] for name in names if name != path]

        return sorted(self._call("list", directory, listing))

    def entries(self, directory: str) -> list[Entry]:
        """Files of a directory with sizes and times, sorted by name; none where it does not exist."""

        def listing(path: str) -> list[Entry]:
            found = _unless_missing(lambda: self.fs.ls(path, detail=True)) or []
            return [
                Entry(str(item["name"]).rpartition("/")[2], int(item["size"] or 0), _modified(item))
                for item in found
                if item["type"] == "file"
            ]

        return sorted(self._call("list", directory, listing), key=lambda entry: entry.name)

    def size(self, relative: str) -> int:
        """Size of a file in bytes.

        Raises:
            StoreError: it is missing.
        """
        return self._call("read", relative, lambda path: int(self.fs.size(path)))

    def size_if_present(self, relative: str) -> int | None:
        """Size of a file in bytes, or ``None`` where there is none."""
        return self._call("read", relative, lambda path: _unless_missing(lambda: int(self.fs.size(path))))

    def exists(self, relative: str) -> bool:
        """Whether there is such a file or directory."""
        return self._call("read", relative, lambda path: info_of(self.fs, path) is not None)

    @contextlib.contextmanager
    def open_input(self, relative: str) -> Iterator[pyarrow.NativeFile]:
        """A seekable binary file to read; one on an object store is fetched whole.

        Nothing in it is written in Python: see ``_let_go``.
        """
        path = self.path(relative)
        with self._translating("read", self.full_url(relative)):
            with pyarrow.OSFile(path) if self.local else pyarrow.BufferReader(self.read(relative)) as stream:
                yield stream

    def arrow_filesystem(self) -> pyarrow.fs.FileSystem:
        """The same file system for pyarrow; it takes what ``path`` returns."""
        if self.local:
            return pyarrow.fs.LocalFileSystem()
        return pyarrow.fs.PyFileSystem(_SteadyHandler(self.fs))

    # writing

    def create(self, relative: str, data: bytes) -> bool:
        """Make a file with these bytes, exactly once among all who try, whole or not at all.

        A request that is repeated because its answer was lost counts as the same try, so the bytes of
        different writers must differ.

        Returns:
            True if the file holds these bytes; False if another was first.

        Raises:
            StoreError: the file could not be made; nothing is known to be there.
        """
        if not data:
            raise ValueError("an empty file cannot tell whose it is")
        create = (
            self._create_local if self.local else self._create_memory if self._memory else self._create_remote
        )
        return self._call("write", relative, lambda path: create(path, data))

    def replace(self, relative: str, data: bytes) -> None:
        """Write a file, over an older one if there is one; readers see the old bytes or the new ones."""
        self._call("write", relative, lambda path: self._replace(path, data))

    def remove(self, relative: str) -> None:
        """Delete a file; nothing happens where there is none."""
        self._call("delete", relative, lambda path: _unless_missing(lambda: self.fs.rm_file(path)))

    @contextlib.contextmanager
    def open_output(self, relative: str) -> Iterator[Any]:
        """A binary file to write in pieces; the name must be new and not yet referred to by anything."""
        path = self.path(relative)
        with self._translating("write", self.full_url(relative)):
            if self.local:
                self._make_parent(path)
                with open(path, "wb") as stream:
                    yield stream
                    stream.flush()
                    os.fsync(stream.fileno())
                return
            # collected on the local disk first: an upload that fails half-way can be repeated
            with tempfile.NamedTemporaryFile(prefix="smoothcert-") as collected:
                yield collected
                collected.flush()
                steadily(lambda: self._upload(collected.name, path), self.full_url(relative))

    def make_directory(self) -> None:
        """Make this directory, where the file system has real ones."""
        if self.local:
            self._call("create", "", lambda path: os.makedirs(path, exist_ok=True))

    def supports_exclusive_create(self, directory: str = "") -> bool:
        """Whether ``create`` is really exclusive here: tried twice on a probe file, which is removed again.

        Raises:
            StoreError: the directory cannot be written to at all.
        """
        if not (self.local or self._memory or self._protocol in _CONDITIONAL_PUT):
            return False
        probe = f"{directory}/probe-{uuid.uuid4().hex}".lstrip("/")
        try:
            if not self.create(probe, b"first"):
                return False
            return not self.create(probe, b"second") and self.read(probe) == b"first"
        except StoreError as exc:
            if isinstance(exc.__cause__, OSError) and exc.__cause__.errno in _NOT_SUPPORTED:
                return False
            raise
        finally:
            self.remove(probe)

    # how

    @property
    def _memory(self) -> bool:
        return self._protocol == "memory"

    def _bytes_of(self, path: str) -> bytes:
        if self.local:
            # three times as fast as through fsspec, and a resume may read thousands
            with open(path, "rb") as stream:
                return stream.read()
        return read_whole(self.fs, path)

    def _upload(self, file: str, path: str) -> None:
        self.fs.put_file(file, path)
        stored, sent = self.fs.info(path)["size"], os.path.getsize(file)
        if stored != sent:
            raise OSError(errno.EIO, f"{stored} bytes arrived where {sent} were sent")

    def _create_local(self, path: str, data: bytes) -> bool:
        temporary = self._write_temporary(path, data)
        try:
            # a link appears with all its bytes, and fails if the name is taken: what rename cannot promise
            os.link(temporary, path)
        except FileExistsError:
            # a network file system may repeat a link whose answer was lost, so the bytes decide
            return self._bytes_of(path) == data
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        _sync_directory(path)
        return True

    def _create_memory(self, path: str, data: bytes) -> bool:
        with _MEMORY_LOCK:
            if self.fs.exists(path):
                return self._bytes_of(path) == data
            self.fs.pipe_file(path, data)
            return True

    def _create_remote(self, path: str, data: bytes) -> bool:
        try:
            self.fs.pipe_file(path, data, mode="create")
            return True
        except Exception as exc:
            if _conflict(exc):
                # two conditional puts met: the store asks to look again
                raise TimeoutError(f"conflicting writes: {exc}") from exc
            if not _already_there(exc) and not is_transient(exc):
                raise
            # the first answer may have been lost and the request repeated: then the bytes are ours
            present = _unless_missing(lambda: self._bytes_of(path))
            if present is None:
                raise
            return present == data

    def _replace(self, path: str, data: bytes) -> None:
        if self.local:
            temporary = self._write_temporary(path, data)
            try:
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
            _sync_directory(path)
        else:
            self.fs.pipe_file(path, data)

    def _write_temporary(self, path: str, data: bytes) -> str:
        self._make_parent(path)
        directory, _, name = path.rpartition("/")
        temporary = f"{directory}/.{name}.{uuid.uuid4().hex}.tmp"
        try:
            with open(temporary, "xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        return temporary

    def _make_parent(self, path: str) -> None:
        if self.local:
            os.makedirs(path.rpartition("/")[0] or "/", exist_ok=True)

    def _call(self, doing: str, relative: str, request: Callable[[str], T]) -> T:
        path = self.path(relative)
        with self._translating(doing, self.full_url(relative)):
            return steadily(lambda: request(path), self.full_url(relative))

    @contextlib.contextmanager
    def _translating(self, doing: str, url: str) -> Iterator[None]:
        try:
            yield
        except Exception as exc:
            ours = translate(exc, doing, url)
            if ours is exc:
                raise
            raise ours from exc


class _SteadyHandler(pyarrow.fs.FSSpecHandler):  # type: ignore[misc]  # pyarrow has no types
    """An fsspec file system for pyarrow, its files read steadily."""

    def open_input_stream(self, path: str) -> pyarrow.NativeFile:
        file = SteadyFile(self.fs, path)
        _HELD_BY_ARROW.add(file)
        return pyarrow.PythonFile(file, mode="r")

    open_input_file = open_input_stream


_HELD_BY_ARROW: weakref.WeakSet[SteadyFile] = weakref.WeakSet()


@atexit.register
def _let_go() -> None:
    """Wait until Arrow's reading threads have dropped what is written in Python.

    They do so a moment after a read has ended. One that asks for Python's lock while the interpreter ends aborts
    the process ("terminate called without an active exception"), after all its work was done.
    """
    end = time.monotonic() + 1.0
    while _HELD_BY_ARROW and time.monotonic() < end:
        gc.collect()
        time.sleep(0.002)


def join(url: str, name: str) -> str:
    """A URL or path below another."""
    return f"{url.rstrip('/')}/{name}"


def _unless_missing(request: Callable[[], T]) -> T | None:
    try:
        return request()
    except FileNotFoundError:
        return None


def _already_there(exc: BaseException) -> bool:
    return isinstance(exc, FileExistsError) or _code(exc) in ("PreconditionFailed", "412")


def _conflict(exc: BaseException) -> bool:
    return _code(exc) in ("ConditionalRequestConflict", "409")


def _code(exc: BaseException) -> str:
    """The object store's own error code, where the exception or its cause carries one."""
    for link in (exc, exc.__cause__):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def _modified(item: dict[str, Any]) -> datetime | None:
    for key in ("LastModified", "mtime", "updated", "last_modified", "modified", "created"):
        value = item.get(key)
        if isinstance(value, datetime):
            return value if value.tzinfo else value.replace(tzinfo=UTC)
        if isinstance(value, (int, float)):
            return datetime.fromtimestamp(value, UTC)
    return None


def _sync_directory(path: str) -> None:
    """Make a new name survive a power failure, where directories can be synced."""
    with contextlib.suppress(OSError):
        handle = os.open(path.rpartition("/")[0] or "/", os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


_NOT_SUPPORTED = frozenset(
    {errno.ENOSYS, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.EINVAL, errno.EXDEV}
)
"""What a link or a conditional put fails with where it does not exist."""
