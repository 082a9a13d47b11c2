"""Whether images that data names by path are still the same files, without reading them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from smoothcert.datasets.image_paths import resolve_path
from smoothcert.datasets.stores import is_link, store_of
from smoothcert.storage.steady import steadily

COVERED = (
    "size and modification time of each image on a disk, entity tag in a store; web addresses as they are"
)
"""What ``ImageVersions`` covers, in words."""

_TAGS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "generation",
    "LastModified",
    "last_modified",
    "mtime",
    "created",
)


class ImageVersions:
    """Digest of paths and versions: changes when a file is overwritten in place, goes or comes.

    A store is asked once for each folder, not for each image.

    Args:
        folder: where relative paths start.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._total = hashlib.sha256()
        self._listings: dict[str, Mapping[str, str]] = {}

    def add(self, path: object) -> None:
        """Note the next image; what is no path has no version."""
        if isinstance(path, bytes):
            path = path.decode("utf-8", "backslashreplace")
        known = isinstance(path, str) and path != ""
        version = self._version(resolve_path(str(path), self._folder)) if known else ""
        self._total.update(f"{path}\0{version}\0".encode("utf-8", "backslashreplace"))

    def hexdigest(self) -> str:
        """The digest so far."""
        return self._total.hexdigest()

    def _version(self, uri: str) -> str:
        if is_link(uri):
            return "link"
        try:
            if uri.startswith("/"):
                return _on_disk(uri)
            store, path = store_of(uri)
            if isinstance(store, LocalFileSystem):
                return _on_disk(path)
            return self._listed(store, path)
        except Exception as exc:  # reading the pair tells what is wrong with it
            return type(exc).__name__

    def _listed(self, store: Any, path: str) -> str:
        folder = path.rpartition("/")[0]
        if folder not in self._listings:
            try:
                entries = steadily(partial(store.ls, folder, detail=True), folder)
            except FileNotFoundError:
                entries = []
            self._listings[folder] = {each["name"].strip("/"): _tagged(each) for each in entries}
        return self._listings[folder].get(path.strip("/"), "absent")


def _on_disk(path: str) -> str:
    found = os.stat(path)
    return f"{found.st_size} {found.st_mtime_ns}"


def _tagged(info: Mapping[str, Any]) -> str:
    tag = next((info[name] for name in _TAGS if info.get(name)), "")
    return f"{info.get('size')} {tag}"
