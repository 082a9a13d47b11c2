"""Reading from stores that fail now and then: passing failures are tried again, cut answers are noticed.

Every request to a store other than the local disk goes through here, for data (files.py, image_paths.py) and for
results (filesystem.py). Reads are ranges of a known length, so an answer that was cut on its way is never taken
for the end of a file. Nothing here imports a storage library: an exception is known by its errno, or by the name of
its class.
"""

from __future__ import annotations

import errno
import io
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from smoothcert.redaction import without_secrets
from smoothcert.storage.waiting import waiting_aloud

T = TypeVar("T")

WAITS_S = (0.2, 1.0, 3.0)
"""Pauses before a request that failed for a passing reason is sent again."""
ENOUGH_S = 60.0
LIMIT_S = 180.0
"""About how long a store is waited for that is not reached, or says nothing: the last try and those before it."""

_SLOW = frozenset(
    {
        "TimeoutError",
        "FSTimeoutError",
        "ReadTimeoutError",
        "ConnectTimeoutError",
        "RequestTimeout",
        "ServerTimeoutError",
    }
)
_CONNECTION = frozenset(
    {
        "ConnectionError",
        "EndpointConnectionError",
        "ConnectionClosedError",
        "HTTPClientError",
        "ClientConnectionError",
        "ClientPayloadError",
        "IncompleteRead",
        "IncompleteReadError",
        "ResponseStreamingError",
    }
)
_BUSY = frozenset(
    {errno.EBUSY, errno.EIO, errno.EAGAIN, errno.ESTALE, getattr(errno, "EREMOTEIO", errno.EIO)}
)

_BUSY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
"""What a web server says when it may serve the same request a moment later."""


def timed_out(exc: BaseException) -> bool:
    """Whether a store did not answer in time."""
    return _is_one_of(exc, _SLOW)


def connection_failed(exc: BaseException) -> bool:
    """Whether the connection to a store broke or was not made."""
    return _is_one_of(exc, _CONNECTION)


def not_served(exc: BaseException) -> bool:
    """Whether a store answered that it cannot just now, or cut its answer."""
    if _is_one_of(exc, frozenset({"ClientResponseError"})):
        return getattr(exc, "status", None) in _BUSY_STATUS
    return isinstance(exc, OSError) and exc.errno in _BUSY


def is_transient(exc: BaseException) -> bool:
    """Whether the same request may succeed a moment later."""
    return timed_out(exc) or connection_failed(exc) or not_served(exc)


def steadily(request: Callable[[], T], place: str) -> T:
    """Send a request until it succeeds or fails for good; at most ``len(WAITS_S) + 1`` times.

    A request that takes more than seconds is told. One whose tries took ``ENOUGH_S`` is not sent again.

    Args:
        request: sends it.
        place: the URL or path that it is about, for that line.

    Raises:
        Exception: what the last try raised.
    """
    started = time.monotonic()
    with waiting_aloud(f"for the store of '{without_secrets(place)}'", LIMIT_S):
        for wait_s in WAITS_S:
            try:
                return request()
            except Exception as exc:
                if not is_transient(exc) or time.monotonic() - started > ENOUGH_S:
                    raise
            time.sleep(wait_s)
        return request()


def read_whole(fs: Any, path: str) -> bytes:
    """All bytes of a file, in one try.

    Raises:
        OSError: also, with errno EIO, when fewer or more bytes came than the store says there are, if it says so.
    """
    data, size = bytes(fs.cat_file(path)), fs.info(path).get("size")
    return data if size is None else _check_length(data, int(size), path)


def info_of(fs: Any, path: str) -> dict[str, Any] | None:
    """What the store says of a path, None where it has nothing; fsspec's own ``exists`` takes any failure for that."""
    try:
        return steadily(lambda: dict(fs.info(path)), path)
    except FileNotFoundError:
        return None


class SteadyFile(io.RawIOBase):
    """A file of a store to read from anywhere; every read is a request of its own, of known length.

    Args:
        fs: the fsspec file system.
        path: as the file system knows it.

    Raises:
        FileNotFoundError: there is none.
    """

    def __init__(self, fs: Any, path: str) -> None:
        self._fs = fs
        self._path = path
        self._size = int(steadily(lambda: fs.info(path), path)["size"])
        self._position = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The position."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position; it may be behind the end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"position {base + offset} is before the file")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, but for the end of the file."""
        start = self._position
        stop = min(start + len(buffer), self._size)
        if start >= stop:
            return 0
        data = steadily(lambda: _check_length(self._range(start, stop), stop - start, self._path), self._path)
        buffer[: len(data)] = data
        self._position = stop
        return len(data)

    def _range(self, start: int, stop: int) -> bytes:
        return bytes(self._fs.cat_file(self._path, start=start, end=stop))


def _check_length(data: bytes, expected: int, path: str) -> bytes:
    if len(data) != expected:
        raise OSError(errno.EIO, f"{len(data)} bytes came where '{path}' has {expected}")
    return data


def _is_one_of(exc: BaseException, names: frozenset[str]) -> bool:
    return any(kind.__name__ in names for kind in type(exc).__mro__)
