"""Records of CSV, TSV and JSON-lines files with the byte offsets where they begin."""

from __future__ import annotations

import codecs
import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from smoothcert.errors import PairError, ReadError, SourceError

_CHUNK_BYTES = 1 << 18
_MOST_LINE_BYTES = 1 << 26
_JSON_LOOK_AHEAD = 100
csv.field_size_limit(
    max(csv.field_size_limit(), _MOST_LINE_BYTES)
)  # a setting of the process; only ever raised

Fields = dict[str, object]


@dataclass(slots=True)
class Record:
    """One record: its fields, or why there are none. ``offset`` is where its first line begins."""

    offset: int
    fields: Fields
    error: PairError | None = None


class TextTable(ABC):
    """A text file of records. Bytes that are not UTF-8 come as lone surrogates (``surrogateescape``)."""

    def __init__(self, stream: BinaryIO, uri: str) -> None:
        self.stream = stream
        self.uri = uri
        self.blank: set[int] = set()
        """Offsets of the lines that were no records, as far as was read."""

    @abstractmethod
    def columns(self) -> list[str]:
        """The names that records may have.

        Raises:
            SourceError: the file does not begin like such a table.
        """

    @abstractmethod
    def records(self, offset: int = 0) -> Iterator[Record]:
        """All records from the one that begins at ``offset`` on; 0 is the beginning of the file.

        Raises:
            SourceError: the rest of the file cannot be cut into records.
        """

    def _lines(self, offset: int) -> Iterator[tuple[int, str]]:
        """(offset, line with its end) from an offset on, without a byte order mark."""
        self.stream.seek(offset)
        waiting = self.stream.read(_CHUNK_BYTES)
        if offset == 0:
            if waiting.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise SourceError(f"'{self.uri}' is UTF-16", remedy="save it as UTF-8")
            if waiting.startswith(codecs.BOM_UTF8):
                waiting, offset = waiting[3:], 3
        while waiting:
            *lines, rest = waiting.split(b"\n")
            for line in lines:
                yield offset, line.decode("utf-8", "surrogateescape") + "\n"
                offset += len(line) + 1
            if len(rest) > _MOST_LINE_BYTES:
                raise SourceError(
                    f"'{self.uri}' has a line of more than {_MOST_LINE_BYTES} bytes at byte {offset}",
                    remedy="check that the file is text",
                )
            self.stream.seek(offset + len(rest))  # another iterator may have moved it
            if not (more := self.stream.read(_CHUNK_BYTES)):
                if rest:
                    yield offset, rest.decode("utf-8", "surrogateescape")
                return
            waiting = rest + more


class CsvTable(TextTable):
    """Comma- or tab-separated values with a line of column names; quoting as in RFC 4180, read strictly."""

    def __init__(self, stream: BinaryIO, uri: str, delimiter: str) -> None:
        super().__init__(stream, uri)
        self.delimiter = delimiter
        self._names: list[str] | None = None
        self._body = 0

    def columns(self) -> list[str]:
        """See ``TextTable``."""
        if self._names is None:
            rows = self._rows(0)
            names = next((cells for _, cells in rows), None)
            if names is None:
                raise SourceError(
                    f"'{self.uri}' is empty", remedy="add a header line and at least one record"
                )
            self._names = [name.strip() for name in names]
            self._body = next((offset for offset, _ in rows), -1)
        return self._names

    def records(self, offset: int = 0) -> Iterator[Record]:
        """See ``TextTable``."""
        names = self.columns()
        offset = max(offset, self._body)
        if self._body < 0:
            return
        for begin, cells in self._rows(offset):
            fields: Fields = dict(zip(names, cells, strict=False))
            error = None
            if len(cells) > len(names):
                error = ReadError(
                    f"the record at byte {begin} has {len(cells)} cells, but there are {len(names)} columns",
                    remedy="quote captions that contain the delimiter",
                )
            yield Record(begin, fields, error)

    def _rows(self, offset: int) -> Iterator[tuple[int, list[str]]]:
        """(offset, cells) of every row that is not blank."""
        begin: list[int] = []  # offset of the row being read

        def lines() -> Iterator[str]:
            for at, line in self._lines(offset):
                if not begin:
                    begin.append(at)
                yield line

        try:
            for cells in csv.reader(lines(), delimiter=self.delimiter, strict=True):
                at = begin.pop()
                if any(cells) or len(cells) > 1:
                    yield at, cells
                else:
                    self.blank.add(at)
        except csv.Error as exc:
            raise SourceError(
                f"'{self.uri}': the record at byte {begin[0]} cannot be read: {exc}",
                remedy="fix its quotes: a cell that contains quotes, delimiters or line breaks must be quoted",
            ) from exc


class JsonLinesTable(TextTable):
    """One JSON object a line; blank lines are no records."""

    def columns(self) -> list[str]:
        """Keys of the first 100 objects."""
        names: dict[str, None] = {}
        for _, record in zip(range(_JSON_LOOK_AHEAD), self.records(), strict=False):
            names.update(dict.fromkeys(record.fields))
        return list(names)

    def records(self, offset: int = 0) -> Iterator[Record]:
        """See ``TextTable``."""
        for begin, line in self._lines(offset):
            if line.strip():
                yield self._record(begin, line)
            else:
                self.blank.add(begin)

    def _record(self, offset: int, line: str) -> Record:
        try:
            fields = json.loads(line)
            reason = "" if isinstance(fields, dict) else f"it holds a {type(fields).__name__}"
        except (ValueError, RecursionError) as exc:
            fields, reason = {}, str(exc)
        if reason:
            error = ReadError(
                f"the line at byte {offset} is not a JSON object: {reason}", remedy="fix the line"
            )
            return Record(offset, {}, error)
        return Record(offset, fields)
