"""Pairs in Parquet files: images as bytes or ``struct<bytes, path>``, captions as text or lists of texts."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.datasets.captions import captions_from, label_from, not_utf8
from smoothcert.datasets.columns import ParquetColumns, choose_columns, image_bytes_complaint
from smoothcert.datasets.files import ListedFile, folder_of, open_binary, store_trouble
from smoothcert.datasets.identity import sampled_digest
from smoothcert.datasets.image_paths import read_image_file
from smoothcert.datasets.layout import RowGroups
from smoothcert.datasets.parquet_rows import Row, check_keys, group_rows, open_parquet
from smoothcert.datasets.records import Pair, UnitSpec, broken, pair_id
from smoothcert.datasets.source import FileSource, Scan
from smoothcert.errors import CaptionError, PairError, ReadError


class ParquetSource(FileSource):
    """A ``Source`` of Parquet files.

    A unit reads only its row groups, a few rows at a time. Integer labels get their names where the file was
    written by Hugging Face ``datasets`` with a class feature.
    """

    suffixes = (".parquet", ".pq")

    def scan(self, file: ListedFile, at_most: int | None) -> Scan:
        """Read the footer and check the columns."""
        with store_trouble(file.uri, "open the Parquet file"), open_binary(file.uri) as stream:
            reader = pq.ParquetFile(stream)
            columns = self._columns(reader, file.uri)
            check_keys(reader, columns.id, file.uri)
            sizes = row_group_sizes(reader)
            return Scan(RowGroups(sizes), sampled_digest(stream, tail_bytes=reader.metadata.serialized_size))

    def read(self, unit: UnitSpec, only: Collection[str] | None = None) -> Iterator[Pair]:
        """See ``Source.read``."""
        with open_parquet(unit.source_uri) as reader:
            columns = self._columns(reader, unit.source_uri)
            for row in group_rows(reader, unit, [columns.image, *columns.texts], columns.id, only):
                yield _pair(row, unit, columns)

    def read_captions(self, unit: UnitSpec) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Read the text columns alone."""
        with open_parquet(unit.source_uri) as reader:
            columns = self._columns(reader, unit.source_uri)
            for row in group_rows(reader, unit, columns.texts, columns.id, None):
                try:
                    if row.error is None:
                        yield pair_id(unit.name, row.key), _texts(row, columns)[0]
                except CaptionError:
                    continue

    def _columns(self, reader: pq.ParquetFile, uri: str) -> ParquetColumns:
        return choose_columns(reader.schema_arrow, self.data.columns, uri, image_bytes_complaint)


def row_group_sizes(reader: pq.ParquetFile) -> array[int]:
    """Rows of each row group."""
    metadata = reader.metadata
    return array("q", (metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)))


def _pair(row: Row, unit: UnitSpec, columns: ParquetColumns) -> Pair:
    identity = pair_id(unit.name, row.key)
    captions: tuple[str, ...] = ()
    label: str | None = None
    try:
        if row.error is not None:
            raise row.error
        captions, label = _texts(row, columns)
        return Pair(identity, unit.source_uri, _image(row, unit, columns), captions, label, None)
    except PairError as exc:
        return broken(identity, unit.source_uri, exc, captions=captions, label=label)


def _texts(row: Row, columns: ParquetColumns) -> tuple[tuple[str, ...], str | None]:
    value, where = _cell(row, columns.caption), f"column '{columns.caption}'"
    if columns.caption_names:
        value = label_from(value, where, columns.caption_names)
    captions = captions_from(value, where)
    if columns.label is None:
        return captions, None
    return captions, label_from(_cell(row, columns.label), f"column '{columns.label}'", columns.class_names)


def _image(row: Row, unit: UnitSpec, columns: ParquetColumns) -> bytes:
    value = _cell(row, columns.image)
    if isinstance(value, dict):
        if value.get("bytes") is None and value.get("path"):
            return read_image_file(str(value["path"]), folder_of(unit.source_uri))
        value = value.get("bytes")
    if value is None:
        raise ReadError(f"column '{columns.image}' is null", remedy="give the pair an image or leave it out")
    return bytes(value)


def _cell(row: Row, column: str) -> Any:
    try:
        return row.batch.column(column)[row.index].as_py()
    except UnicodeDecodeError as exc:
        raise not_utf8(f"column '{column}'", exc) from None
    except pa.ArrowInvalid as exc:
        raise ReadError(f"column '{column}' is damaged: {exc}") from None
