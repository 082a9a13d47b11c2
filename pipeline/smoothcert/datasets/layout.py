"""Where units may begin in a file, and how its pairs are cut into units."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

CHECKPOINT_STRIDE = 16
"""A text file or archive is indexed after every so many pairs; a reader skips the few in between."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The pairs [start, stop) of a file; see ``UnitSpec`` for the other fields."""

    start: int
    stop: int
    offset: int = 0
    offset_pair: int = 0
    repeated: tuple[int, ...] = ()


class FileLayout(ABC):
    """What a scan remembers of a file."""

    @property
    @abstractmethod
    def pairs(self) -> int:
        """Pairs in the file."""

    @abstractmethod
    def cuts(self, pairs_per_unit: int, pairs: int) -> Iterator[Cut]:
        """The first ``pairs`` pairs in cuts of at most ``pairs_per_unit``, in order."""


@dataclass(slots=True)
class RowGroups(FileLayout):
    """A Parquet file: rows of each row group.

    A unit never holds parts of two row groups: small groups are joined whole, a large one is cut evenly. So
    no group is read for the sake of a few rows at its edge.
    """

    sizes: array[int]

    @property
    def pairs(self) -> int:
        """See ``FileLayout``."""
        return sum(self.sizes)

    def cuts(self, pairs_per_unit: int, pairs: int) -> Iterator[Cut]:
        """See ``FileLayout``."""
        start = position = 0
        for size in self.sizes:
            size = min(size, pairs - position)
            if position > start and position + size - start > pairs_per_unit:
                yield Cut(start, position)
                start = position
            position += size
            if size > pairs_per_unit:
                pieces = -(-size // pairs_per_unit)
                bounds = [start + size * i // pieces for i in range(pieces + 1)]
                for low, high in zip(bounds, bounds[1:], strict=False):
                    yield Cut(low, high)
                start = position
        if position > start:
            yield Cut(start, position)


@dataclass(slots=True)
class Checkpoints(FileLayout):
    """A text file or archive: byte offsets of pairs at least ``CHECKPOINT_STRIDE`` apart, and the repeated keys."""

    offsets: array[int] = field(default_factory=lambda: array("q"))
    positions: array[int] = field(default_factory=lambda: array("q"))
    repeated: array[int] = field(default_factory=lambda: array("q"))
    count: int = 0

    @property
    def pairs(self) -> int:
        """See ``FileLayout``."""
        return self.count

    def add(self, offset: int, *, repeated: bool = False, begins: bool = True) -> None:
        """Note the next pair.

        Args:
            offset: where it begins in the file.
            repeated: whether an earlier pair has its key.
            begins: whether reading may begin there; true of the first pair.
        """
        if begins and (not self.positions or self.count - self.positions[-1] >= CHECKPOINT_STRIDE):
            self.offsets.append(offset)
            self.positions.append(self.count)
        if repeated:
            self.repeated.append(self.count)
        self.count += 1

    def cuts(self, pairs_per_unit: int, pairs: int) -> Iterator[Cut]:
        """See ``FileLayout``."""
        for start in range(0, pairs, pairs_per_unit):
            stop = min(start + pairs_per_unit, pairs)
            mark = bisect_right(self.positions, start) - 1
            low, high = bisect_left(self.repeated, start), bisect_left(self.repeated, stop)
            repeated = tuple(self.repeated[low:high])
            yield Cut(start, stop, self.offsets[mark], self.positions[mark], repeated)
