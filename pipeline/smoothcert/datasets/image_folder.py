"""Folders of images, one for each class: ``zero/0001.png``, ``one/0002.jpg``."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from smoothcert.datasets.ahead import map_ahead
from smoothcert.datasets.columns import require_kept
from smoothcert.datasets.files import ListedFile, folder_of, list_files, store_trouble
from smoothcert.datasets.image_paths import read_image_file
from smoothcert.datasets.image_versions import COVERED, VersionReader
from smoothcert.datasets.kept import kept_values
from smoothcert.datasets.labels import LabelTally, label_from
from smoothcert.datasets.layout import Cut, FileLayout
from smoothcert.datasets.partitions import partition_values
from smoothcert.datasets.records import Pair, UnitSpec, broken_pair, pair_id
from smoothcert.datasets.source import FileSource, Scan
from smoothcert.errors import PairError, SourceError
from smoothcert.job import DataSection


@dataclass(frozen=True, slots=True)
class FolderLayout(FileLayout):
    """The images of one folder, sorted by name.

    Attributes:
        count: how many.
        names_digest: of their names; units carry it, so that a folder that changed is noticed.
    """

    count: int
    names_digest: int

    @property
    def pairs(self) -> int:
        """See ``FileLayout``."""
        return self.count

    def cuts(self, pairs_per_unit: int, pairs: int) -> Iterator[Cut]:
        """See ``FileLayout``; the names' digest stands where archives have an offset."""
        for start in range(0, pairs, pairs_per_unit):
            yield Cut(start, min(start + pairs_per_unit, pairs), self.names_digest)


class ImageFolderSource(FileSource):
    """A ``Source`` of folders of images; the label is the name of the image's folder.

    - Each folder that holds images, at any depth, is what a file is to other sources. A pair's key is the image's
      name.
    - ``label=zero/`` is the class ``zero``.
    - There are no captions, and ``data.keep`` knows the folders ``name=value`` of the path alone.
    - Who reads a unit lists its folder again, and refuses it where images came or went after planning.
    """

    suffixes = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
    covers = f"names of all images; {COVERED}"

    def __init__(self, data: DataSection) -> None:
        super().__init__(data)
        self._last: tuple[str, list[str]] = ("", [])

    def scan(self, file: ListedFile, at_most: int | None) -> Scan:
        """Look at the images of one folder.

        Raises:
            SourceError: a column of data.keep is not in the folder's path.
        """
        names = self._names(file.uri)
        require_kept(self.data, list(partition_values(file.uri + "/")), file.uri)
        reader = VersionReader(file.uri)
        for name in names[:at_most]:
            reader.add(name)
        layout = FolderLayout(len(names), _digest_of(names))
        return Scan(layout, f"{layout.names_digest:016x}", images=reader.versions)

    def list_files(self) -> list[ListedFile]:
        """The folders that hold images."""
        found: dict[str, list[ListedFile]] = {}
        for file in super().list_files():
            found.setdefault(folder_of(file.uri), []).append(file)
        folders = []
        for uri, images in found.items():
            if len(images) != len(self._names(uri)):
                raise SourceError(
                    f"data.uri names {len(images)} of the images in '{uri}', but the format imagefolder reads folders",
                    remedy="name the folder itself, or list the images in a manifest",
                )
            folders.append(ListedFile(uri, folder_of("/" + images[0].name)[1:], None))
        return folders

    def read(self, unit: UnitSpec, only: Collection[str] | None = None) -> Iterator[Pair]:
        """See ``Source.read``."""
        folder, names = self._last  # units of one folder follow each other
        if folder != unit.source_uri:
            names = self._names(unit.source_uri)
            self._last = (unit.source_uri, names)
        if _digest_of(names) != unit.offset:
            raise SourceError(
                f"the images in '{unit.source_uri}' are not those that were planned: some came or went",
                remedy="restore the folder, or start a new run",
            )
        wanted = ((pair_id(unit.name, name), name) for name in names[unit.start : unit.stop])
        chosen = (each for each in wanted if only is None or each[0] in only)
        yield from map_ahead(lambda each: self._pair(*each, unit.source_uri), chosen)

    def named_images(self, unit: UnitSpec) -> Iterator[tuple[str, str]]:
        """See ``Source.named_images``."""
        for name in self._names(unit.source_uri)[unit.start : unit.stop]:
            yield pair_id(unit.name, name), name

    def read_captions(self, unit: UnitSpec) -> Iterator[tuple[str, tuple[str, ...]]]:
        """There are none."""
        return iter(())

    def count_labels(self, unit: UnitSpec, tally: LabelTally) -> None:
        """By the folder's name alone."""
        try:
            tally.add(self._label(unit.source_uri), len(unit))
        except PairError:
            tally.refused += len(unit)

    def _names(self, folder: str) -> list[str]:
        with store_trouble(folder, "list"):
            listed = list_files([folder], self.suffixes, recursive=False)
        return [file.uri.rpartition("/")[2] for file in listed]

    def _pair(self, identity: str, name: str, folder: str) -> Pair:
        label = None
        kept: tuple[str | None, ...] = ()
        try:
            kept = kept_values(self.data, partition_values(folder + "/").get)
            label = self._label(folder)
            image = read_image_file(f"{folder}/{name}", folder)
            return Pair(identity, folder, image, (), label, None, kept)
        except PairError as exc:
            return broken_pair(identity, folder, exc, label=label, kept=kept)

    def _label(self, folder: str) -> str | None:
        column = self.data.columns.label
        if column is None:
            return None
        spelt = partition_values(folder + "/")
        name = spelt[column] if column in spelt else folder.rpartition("/")[2]
        return label_from(name, f"folder '{folder}'", self.data.class_names or ())


def _digest_of(names: list[str]) -> int:
    """63 bits that differ for nearly any other list of names."""
    total = hashlib.sha256("\0".join(names).encode())
    return int.from_bytes(total.digest()[:8], "big") >> 1
