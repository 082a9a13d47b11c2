"""From a URI to the store that holds it and the path there."""

from __future__ import annotations

import os
from typing import Any

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from smoothcert.errors import SourceError
from smoothcert.storage.options import patience

LINK_CONNECT_S = 10.0
LINK_READ_S = 15.0
LINK_TOTAL_S = 60.0
"""How long a web server may take: to be connected, to send the next bytes, and altogether."""

_INSIDE_ANOTHER = frozenset(
    ("zip", "tar", "libarchive", "simplecache", "filecache", "blockcache", "cached", "dir", "reference")
)
"""Protocols that read what another store holds."""
_STAND_IN = "\ue000\ue000"
"""For '::' in a name while fsspec looks at it: characters that no name has."""


def store_of(uri: str) -> tuple[Any, str]:
    """The fsspec file system of a URI, and the path as that knows it.

    ``::`` may be part of a name: only what fsspec would read as one store inside another is refused.

    Raises:
        SourceError: the URI chains file systems.
        Exception: fsspec's own, for a protocol that it does not know or whose package is missing.
    """
    if is_link(uri):
        return _web(uri)
    if "::" not in uri:
        store, path = url_to_fs(uri, **patience(uri.partition("://")[0]))
        return store, str(path)
    if uri.startswith("/") or os.path.lexists(uri):
        return _local(uri)
    first, *others = uri.split("::")
    if any("://" in part for part in others) or first.partition("://")[0] in _INSIDE_ANOTHER:
        raise SourceError(
            f"data.uri '{uri}' chains file systems", remedy="use the URL of the store directly, e.g. s3://..."
        )
    if "://" not in uri:
        return _local(uri)
    store, path = url_to_fs(uri.replace("::", _STAND_IN), **patience(first.partition("://")[0]))
    return store, str(path).replace(_STAND_IN, "::")


def is_link(uri: str) -> bool:
    """Whether a URI is a web address: each stands for itself, and one that is dead says nothing about others."""
    return uri.lower().startswith(("http://", "https://"))


def _local(uri: str) -> tuple[Any, str]:
    store = LocalFileSystem()
    return store, str(store._strip_protocol(uri))


def _web(uri: str) -> tuple[Any, str]:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=LINK_TOTAL_S, connect=LINK_CONNECT_S, sock_read=LINK_READ_S)
    return fsspec.filesystem("https", client_kwargs={"timeout": timeout}), uri
