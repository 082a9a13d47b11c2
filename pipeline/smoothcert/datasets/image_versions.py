"""Whether images that data names by path are still the same files, without reading them."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from smoothcert.datasets.image_paths import resolve_path
from smoothcert.datasets.stores import is_link, store_of
from smoothcert.storage.steady import steadily

COVERED = (
    "size and modification time of each image on a disk, entity tag in a store; web addresses as they are"
)
"""What ``ImageVersions`` covers, in words."""

_UNKNOWN = -1

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


@dataclass(slots=True)
class ImageVersions:
    """One entry for each pair of a file, in order; 16 bytes an image.

    Attributes:
        sizes: of the images, bytes; -1 where it is not known.
        marks: 64 bits of a digest of path and version: changes when an image is overwritten in place, goes or comes.
    """

    sizes: array[int] = field(default_factory=lambda: array("q"))
    marks: array[int] = field(default_factory=lambda: array("Q"))

    def __len__(self) -> int:
        return len(self.marks)

    def changed(self, now: ImageVersions, *, moved: bool) -> list[int]:
        """Positions of images that are no longer the same.

        Args:
            now: the versions of the same pairs now.
            moved: the images were copied to another place since: there times and tags may differ, sizes may not.
        """
        (sizes, marks), (sizes_now, marks_now) = self._numbers(), now._numbers()
        changed = marks != marks_now
        if moved:
            changed &= (sizes != sizes_now) | (sizes == _UNKNOWN)
        return [int(position) for position in np.flatnonzero(changed)]

    def _numbers(self) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        return np.array(self.sizes, np.int64), np.array(self.marks, np.uint64)


class VersionReader:
    """Notes the versions of images. A store is asked once for each folder, not for each image.

    Args:
        folder: where relative paths start.
    """

    def __init__(self, folder: str) -> None:
        self.versions = ImageVersions()
        self._folder = folder
        self._listings: dict[str, Mapping[str, tuple[int, str]]] = {}

    def add(self, path: object) -> None:
        """Note the next image; what is no path has no version."""
        if isinstance(path, bytes):
            path = path.decode("utf-8", "backslashreplace")
        known = isinstance(path, str) and path != ""
        size, tag = self._look(resolve_path(str(path), self._folder)) if known else (_UNKNOWN, "")
        digest = hashlib.sha256(f"{path}\0{size} {tag}".encode("utf-8", "backslashreplace")).digest()
        self.versions.sizes.append(size)
        self.versions.marks.append(int.from_bytes(digest[:8], "big"))

    def _look(self, uri: str) -> tuple[int, str]:
        """Size and what else tells versions apart."""
        if is_link(uri):
            return _UNKNOWN, "link"
        try:
            if uri.startswith("/"):
                return _on_disk(uri)
            store, path = store_of(uri)
            if isinstance(store, LocalFileSystem):
                return _on_disk(path)
            return self._listed(store, path)
        except Exception as exc:  # reading the pair tells what is wrong with it
            return _UNKNOWN, type(exc).__name__

    def _listed(self, store: Any, path: str) -> tuple[int, str]:
        folder = path.rpartition("/")[0]
        if folder not in self._listings:
            try:
                entries = steadily(partial(store.ls, folder, detail=True), folder)
            except FileNotFoundError:
                entries = []
            self._listings[folder] = {each["name"].strip("/"): _tagged(each) for each in entries}
        return self._listings[folder].get(path.strip("/"), (_UNKNOWN, "absent"))


def _on_disk(path: str) -> tuple[int, str]:
    found = os.stat(path)
    return found.st_size, str(found.st_mtime_ns)


def _tagged(info: Mapping[str, Any]) -> tuple[int, str]:
    size = info.get("size")
    tag = next((str(info[name]) for name in _TAGS if info.get(name)), "")
    return _UNKNOWN if size is None else int(size), tag
