"""What sources hand out: files, units of work, and pairs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from smoothcert.datasets.image_versions import ImageVersions
from smoothcert.errors import PairError


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a data source.

    Attributes:
        uri: absolute path or fsspec URL; what opens it, from any machine that sees the same store.
        name: the path below the folder that all files of the source share; part of every ``pair_id``.
        pairs: how many pairs of it belong to the source (after ``limit``).
        digest: hex digest of its content identity, the same for a copy of the file.
        images: versions of the image files that its pairs name by path; ``None`` where images are inside.
    """

    uri: str
    name: str
    pairs: int
    digest: str
    images: ImageVersions | None = None


@dataclass(frozen=True, slots=True)
class UnitSpec:
    """Consecutive pairs of one file: what is scheduled, retried and committed.

    Complete in itself: ``Source.read`` needs nothing else, so a worker never lists or scans.

    Attributes:
        unit_id: stable name, ``u<number>-<8 hex>``.
        source_uri: the file.
        start: position of the first pair in the file.
        stop: position after the last pair.
        offset: byte position in the file (archives and text) where the pair ``offset_pair`` begins; for a folder of
            images, a digest of their names.
        offset_pair: position of the pair that begins at ``offset``; at most ``start``.
        source_name: the file's name in every ``pair_id``; empty means the last part of ``source_uri``.
        repeated: positions of pairs whose key an earlier pair of the file has; their ``pair_id`` ends in
            ``~<position>``.
    """

    unit_id: str
    source_uri: str
    start: int
    stop: int
    offset: int = 0
    offset_pair: int = 0
    source_name: str = ""
    repeated: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.offset_pair <= self.start < self.stop:
            raise ValueError(
                f"unit '{self.unit_id}' has offset_pair={self.offset_pair}, start={self.start}, "
                f"stop={self.stop}; 0 <= offset_pair <= start < stop must hold"
            )

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def name(self) -> str:
        """The file's part of every ``pair_id``."""
        return self.source_name or self.source_uri.rstrip("/").rpartition("/")[2]

    def part(self, start: int, stop: int) -> UnitSpec:
        """The unit of the pairs [start, stop) alone, with the same ``pair_id`` for each.

        Raises:
            ValueError: the positions are not inside this unit.
        """
        if not self.start <= start < stop <= self.stop:
            raise ValueError(
                f"[{start}, {stop}) is not inside unit '{self.unit_id}' [{self.start}, {self.stop})"
            )
        number = self.unit_id.partition("-")[0]
        return replace(self, unit_id=unit_id(number, self.name, start, stop), start=start, stop=stop)


def unit_id(number: str, name: str, start: int, stop: int) -> str:
    """``<number>-<8 hex>``: the hex part names the file and the positions, wherever the file is kept."""
    what = f"{name}\0{start}\0{stop}"
    return f"{number}-{hashlib.sha256(what.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True)
class Pair:
    """One image with its captions, or the reason why it cannot be had.

    Attributes:
        pair_id: ``<file name>#<key>``; the key is the row number, the id column or the archive's member key.
        source_uri: the file that lists or holds the pair.
        image: the encoded image, not yet decoded; ``None`` exactly when ``error`` is set.
        captions: one or more texts; empty when there is an error with them.
        label: the class name, if the data has one.
        error: ``ReadError`` or ``CaptionError``; such a pair becomes a quarantined row.
        kept: own columns of the data, in the order of ``data.keep``; empty where there are none or they are not known.
        image_digest: hex SHA-256 of ``image`` as it was read, once that is dropped; ``None`` before, and without one.
        image_name: path of the image as the row names it, where the key is no name but a row number; else ``None``.
    """

    pair_id: str
    source_uri: str
    image: bytes | None
    captions: tuple[str, ...]
    label: str | None
    error: PairError | None
    kept: tuple[str | None, ...] = ()
    image_digest: str | None = None
    image_name: str | None = None

    def without_image(self) -> Pair:
        """The same pair without the image's bytes, with their digest instead."""
        digest = None if self.image is None else hashlib.sha256(self.image).hexdigest()
        return replace(self, image=None, image_digest=digest)


def pair_id(name: str, key: str | int) -> str:
    """``<name>#<key>``; '#' and '%' in the name are escaped, so that no two pairs share an id."""
    return f"{name.replace('%', '%25').replace('#', '%23')}#{key}"


def broken_pair(
    identity: str,
    uri: str,
    error: PairError,
    *,
    captions: tuple[str, ...] = (),
    label: str | None = None,
    kept: tuple[str | None, ...] = (),
) -> Pair:
    """A pair that carries its error, as valid text and freed of the frames where it was raised."""
    message, remedy = (
        text.encode("utf-8", "backslashreplace").decode() for text in (error.message, error.remedy)
    )
    return Pair(identity, uri, None, captions, label, type(error)(message, remedy=remedy), kept)
