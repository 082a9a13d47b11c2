"""A source format of its own: text files, a pair a line: label, caption and the bytes of the image in hex."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from smoothcert.datasets.captions import captions_from
from smoothcert.datasets.files import ListedFile, open_binary, store_trouble
from smoothcert.datasets.identity import whole_digest
from smoothcert.datasets.labels import LabelTally, label_from
from smoothcert.datasets.layout import Checkpoints
from smoothcert.datasets.records import Pair, UnitSpec, broken_pair, pair_id
from smoothcert.datasets.source import FileSource, Scan
from smoothcert.errors import PairError, ReadError, SourceError


class HexLinesSource(FileSource):
    """A ``Source`` of lines ``label <tab> caption <tab> hex``."""

    suffixes = (".hex",)
    covers = "every byte"

    def scan(self, file: ListedFile, at_most: int | None) -> Scan:
        """Note where lines begin, so that units can be read from there."""
        layout = Checkpoints()
        with store_trouble(file.uri, "read the lines"), open_binary(file.uri) as stream:
            while layout.count != at_most and (line := stream.readline()):
                layout.add(stream.tell() - len(line))
            return Scan(layout, whole_digest(stream))

    def read(self, unit: UnitSpec, only: Collection[str] | None = None) -> Iterator[Pair]:
        """See ``Source.read``: a line that is none is a pair with an error, which is quarantined."""
        for identity, line in self._lines(unit):
            if only is None or identity in only:
                try:
                    label, captions, image = _cells(line)
                    yield Pair(identity, unit.source_uri, image, captions, label, None)
                except PairError as exc:
                    yield broken_pair(identity, unit.source_uri, exc)

    def read_captions(self, unit: UnitSpec) -> Iterator[tuple[str, tuple[str, ...]]]:
        """See ``FileSource.read_captions``."""
        for pair in self.read(unit):
            if pair.error is None:
                yield pair.pair_id, pair.captions

    def count_labels(self, unit: UnitSpec, tally: LabelTally) -> None:
        """See ``FileSource.count_labels``."""
        for pair in self.read(unit):
            if pair.error is None:
                tally.add(pair.label)

    def _lines(self, unit: UnitSpec) -> Iterator[tuple[str, bytes]]:
        """(pair_id, line) for each pair of the unit."""
        with store_trouble(unit.source_uri, "read the lines"), open_binary(unit.source_uri) as stream:
            stream.seek(unit.offset)
            for position in range(unit.offset_pair, unit.stop):
                if not (line := stream.readline()):
                    raise SourceError(
                        f"'{unit.source_uri}' has {position} lines, but lines up to {unit.stop} were planned",
                        remedy="restore the file, or start a new run",
                    )
                if position >= unit.start:
                    yield pair_id(unit.name, position), line


def _cells(line: bytes) -> tuple[str | None, tuple[str, ...], bytes]:
    """Label, captions and image of a line, or a ``PairError``."""
    cells = line.strip(b"\n").split(b"\t")
    try:
        label, caption, image = cells[0], cells[1], bytes.fromhex(cells[2].decode())
    except (IndexError, ValueError) as exc:
        raise ReadError(f"the line is not label, caption and hex: {exc}", remedy="correct the line") from exc
    return label_from(label, "the label"), captions_from(caption, "the caption"), image
