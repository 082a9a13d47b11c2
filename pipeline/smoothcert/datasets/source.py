"""The contract of data sources, and what all of them share."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

from smoothcert.datasets.files import ListedFile, list_files
from smoothcert.datasets.image_versions import ImageVersions
from smoothcert.datasets.labels import LabelTally
from smoothcert.datasets.layout import FileLayout
from smoothcert.datasets.left_out import LeftOut, LeftOuts
from smoothcert.datasets.part import Ranges, overlap, ranges_of, ranges_of_sample
from smoothcert.datasets.records import Pair, SourceFile, UnitSpec, unit_id
from smoothcert.errors import SourceError
from smoothcert.job import DataSection

SCAN_THREADS = 16
"""Files scanned at once: opening files of an object store is waiting, not work."""


class Source(Protocol):
    """Image-text pairs in files.

    ``files``, ``units``, ``digest`` and ``captions`` list and scan the files (once, then remembered) and
    raise ``SourceError`` for anything that is wrong with a file as a whole, before any work. ``read`` needs
    only the unit: a worker's source never lists.
    """

    @property
    def covers(self) -> str:
        """What ``digest`` covers, in words."""

    def files(self) -> Iterator[SourceFile]:
        """Every file with its pairs, in order, up to the job's ``limit``."""

    def units(self, pairs_per_unit: int) -> Iterator[UnitSpec]:
        """All pairs in units of at most ``pairs_per_unit``, each within one file."""

    def read(self, unit: UnitSpec, only: Collection[str] | None = None) -> Iterator[Pair]:
        """The unit's pairs in order: exactly ``len(unit)`` of them, broken ones with their ``error``.

        Args:
            unit: from ``units`` of a source with the same data section, or a ``part`` of one.
            only: if given, just the pairs with these ids.

        Raises:
            SourceError: the file as a whole cannot be read, or is no longer the one that was planned.
        """

    def captions(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """(pair_id, captions) of every pair whose captions are valid, without reading images."""

    def digest(self) -> str:
        """Hex digest of names, sizes and contents, as far as ``covers`` says; the same for a copy that keeps these."""

    def named_images(self, unit: UnitSpec) -> Iterator[tuple[str, str]]:
        """(pair_id, path) of each pair of a unit, in order, where data names images by path; nothing is read of them.

        Their versions stand in ``SourceFile.images``, apart from ``digest``: a mended image is no other data.
        """

    def labels(self) -> LabelTally:
        """The labels of all pairs, counted, without reading images."""

    def left_out(self) -> tuple[LeftOut, ...]:
        """Everything that was seen and is no part of any pair: files, folders, members, lines."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What a look at one file's structure tells: where its pairs are, its content identity, and what is no pair."""

    layout: FileLayout
    digest: str
    left_out: tuple[LeftOut, ...] = ()
    images: ImageVersions | None = None
    """Versions of the image files that it names, where it names any."""


class FileSource(ABC):
    """A source of independent files: the subclass scans and reads one, the rest is here."""

    suffixes: ClassVar[tuple[str, ...]]
    """What a directory's files must end in to be taken."""
    recursive: ClassVar[bool] = True
    """Whether directories are searched to any depth."""
    covers: ClassVar[str] = (
        "every byte of files up to 4 MiB, else size, both ends and headers; not images that rows name by path"
    )
    """What a change must touch to change the ``digest``, in words."""

    def __init__(self, data: DataSection) -> None:
        self.data = data
        self._scanned: list[tuple[SourceFile, FileLayout]] | None = None
        self._left_out = LeftOuts()
        self._lock = threading.Lock()

    @abstractmethod
    def scan(self, file: ListedFile, at_most: int | None) -> Scan:
        """Check one file and find its pairs; may stop after ``at_most`` of them."""

    @abstractmethod
    def read(self, unit: UnitSpec, only: Collection[str] | None = None) -> Iterator[Pair]:
        """See ``Source.read``."""

    @abstractmethod
    def read_captions(self, unit: UnitSpec) -> Iterator[tuple[str, tuple[str, ...]]]:
        """``Source.captions`` for one unit."""

    @abstractmethod
    def count_labels(self, unit: UnitSpec, tally: LabelTally) -> None:
        """``Source.labels`` for one unit."""

    def files(self) -> Iterator[SourceFile]:
        """See ``Source.files``."""
        scanned = self._scan_all()
        ranges, begins = self._ranges(), 0
        for file, _ in scanned:
            if ranges is None:
                yield file
            else:
                held = sum(stop - start for start, stop in overlap(ranges, begins, begins + file.pairs))
                yield replace(file, pairs=held)
            begins += file.pairs

    def _ranges(self) -> Ranges | None:
        """Positions of the pairs that the job is about; None for all."""
        if self.data.part is None and self.data.sample is None:
            return None
        pairs = sum(file.pairs for file, _ in self._scan_all())
        if self.data.sample is not None:
            return ranges_of_sample(self.data.sample, pairs)
        assert self.data.part is not None
        return ranges_of(self.data.part, pairs)

    def units(self, pairs_per_unit: int) -> Iterator[UnitSpec]:
        """See ``Source.units``."""
        if pairs_per_unit < 1:
            raise ValueError(f"pairs_per_unit={pairs_per_unit} must be at least 1")
        number = begins = 0
        ranges = self._ranges()
        for file, layout in self._scan_all():
            for cut in layout.cuts(pairs_per_unit, file.pairs):
                unit = UnitSpec(
                    unit_id=unit_id(f"u{number:06d}", file.name, cut.start, cut.stop),
                    source_uri=file.uri,
                    start=cut.start,
                    stop=cut.stop,
                    offset=cut.offset,
                    offset_pair=cut.offset_pair,
                    source_name=file.name,
                    repeated=cut.repeated,
                )
                number += 1
                if ranges is None:
                    yield unit
                    continue
                for start, stop in overlap(ranges, begins + cut.start, begins + cut.stop):
                    yield unit.part(start - begins, stop - begins)
            begins += file.pairs

    def captions(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """See ``Source.captions``."""
        if not self.data.has_captions:
            return
        for unit in self.units(1 << 16):
            yield from self.read_captions(unit)

    def digest(self) -> str:
        """See ``Source.digest``."""
        total = hashlib.sha256(self.data.format.encode())
        for file in self.files():
            total.update(f"\0{file.name}\0{file.pairs}\0{file.digest}".encode())
        return total.hexdigest()

    def named_images(self, unit: UnitSpec) -> Iterator[tuple[str, str]]:
        """See ``Source.named_images``; here there are none."""
        return iter(())

    def leave_out(self, kind: str, name: str, reason: str) -> None:
        """Note what a listing met and does not take."""
        self._left_out.add(kind, name, reason)

    def labels(self) -> LabelTally:
        """See ``Source.labels``."""
        total = LabelTally()
        whole = list(self.units(1 << 62))
        with ThreadPoolExecutor(min(SCAN_THREADS, len(whole))) as threads:
            for tally in threads.map(self._labels, whole):
                total.merge(tally)
        return total

    def _labels(self, unit: UnitSpec) -> LabelTally:
        tally = LabelTally()
        self.count_labels(unit, tally)
        return tally

    def left_out(self) -> tuple[LeftOut, ...]:
        """See ``Source.left_out``."""
        self._scan_all()
        return tuple(self._left_out)

    def list_files(self) -> list[ListedFile]:
        """The files that the job means; notes what was seen beside them."""
        return list_files(self.data.uris, self.suffixes, recursive=self.recursive, on_left_out=self.leave_out)

    def _scan_all(self) -> list[tuple[SourceFile, FileLayout]]:
        with self._lock:
            if self._scanned is None:
                self._scanned = self._scan_files()
            return self._scanned

    def _scan_files(self) -> list[tuple[SourceFile, FileLayout]]:
        self._left_out = LeftOuts()
        listed = self.list_files()
        scanned: list[tuple[SourceFile, FileLayout]] = []
        if (left := self.data.limit) is None:
            with ThreadPoolExecutor(min(SCAN_THREADS, len(listed))) as threads:
                for file, scan in zip(listed, threads.map(lambda f: self.scan(f, None), listed), strict=True):
                    entry = SourceFile(file.uri, file.name, scan.layout.pairs, scan.digest, scan.images)
                    scanned.append((entry, scan.layout))
                    self._left_out.update(scan.left_out)
        else:
            for file in listed:
                scan = self.scan(file, left)
                pairs = min(scan.layout.pairs, left)
                scanned.append(
                    (SourceFile(file.uri, file.name, pairs, scan.digest, scan.images), scan.layout)
                )
                self._left_out.update(scan.left_out)
                left -= pairs
                if not left:
                    break
            for file in listed[len(scanned) :]:
                self._left_out.add("file", file.uri, "data.limit is reached before it")
        if not any(file.pairs for file, _ in scanned):
            raise SourceError(
                f"data.uri {', '.join(self.data.uris)} has no pairs in its {len(listed)} file(s)",
                remedy="check data.uri and data.format",
            )
        return scanned
