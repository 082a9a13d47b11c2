"""Pairs in Parquet files: images as bytes or ``struct<bytes, path>``, captions as text or lists of texts."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.datasets.columns import Complaint, ParquetColumns, choose_columns, image_bytes_complaint
from smoothcert.datasets.files import ListedFile, folder_of, open_binary, store_trouble
from smoothcert.datasets.identity import sampled_digest
from smoothcert.datasets.image_paths import read_image_file
from smoothcert.datasets.labels import LabelTally
from smoothcert.datasets.layout import RowGroups
from smoothcert.datasets.nanoseconds import read_as_pandas_does
from smoothcert.datasets.parquet_cells import captions_and_label, captions_of, cell, kept_of
from smoothcert.datasets.parquet_labels import count_column, count_fixed
from smoothcert.datasets.parquet_rows import Row, check_keys, group_rows, open_parquet
from smoothcert.datasets.records import Pair, UnitSpec, broken_pair, pair_id
from smoothcert.datasets.source import FileSource, Scan
from smoothcert.errors import PairError, ReadError


class ParquetSource(FileSource):
    """A ``Source`` of Parquet files.

    A unit reads only its row groups, a few rows at a time. Integer labels get their names where the file was
    written by Hugging Face ``datasets`` with a class feature.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".parquet", ".pq")

    def image_complaint(self, kind: pa.DataType) -> Complaint | None:
        """What is wrong with a type as the image column, if anything."""
        return image_bytes_complaint(kind)

    def scan(self, file: ListedFile, at_most: int | None) -> Scan:
        """Read the footer and check the columns."""
        with store_trouble(file.uri, "open the Parquet file"), open_binary(file.uri) as stream:
            reader = pq.ParquetFile(stream)
            columns = self._columns(reader, file.uri)
            check_keys(reader, columns.id, file.uri)
            metadata = reader.metadata
            sizes = array("q", (metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)))
            return Scan(RowGroups(sizes), sampled_digest(stream, tail_bytes=metadata.serialized_size))

    def read(self, unit: UnitSpec, only: Collection[str] | None = None) -> Iterator[Pair]:
        """See ``Source.read``."""
        with open_parquet(unit.source_uri) as reader:
            columns = self._columns(reader, unit.source_uri)
            for row in group_rows(reader, unit, columns.everything, columns.id, only):
                yield self._pair(row, unit, columns)

    def read_captions(self, unit: UnitSpec) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Read the text columns alone."""
        with open_parquet(unit.source_uri) as reader:
            columns = self._columns(reader, unit.source_uri)
            for row in group_rows(reader, unit, columns.texts, columns.id, None):
                try:
                    if row.error is None:
                        yield pair_id(unit.name, row.key), captions_of(row, columns)
                except PairError:
                    continue

    def count_labels(self, unit: UnitSpec, tally: LabelTally) -> None:
        """Read the label column alone."""
        with open_parquet(unit.source_uri) as reader:
            columns = self._columns(reader, unit.source_uri)
            if columns.label is None or columns.label in columns.fixed:
                count_fixed(columns, len(unit), tally)
            else:
                count_column(reader, unit, columns.label, columns.class_names, tally)

    def _columns(self, reader: pq.ParquetFile, uri: str) -> ParquetColumns:
        return self._columns_of(reader.schema_arrow, uri)

    def _columns_of(self, schema: pa.Schema, uri: str) -> ParquetColumns:
        columns = choose_columns(schema, self.data, uri, self.image_complaint)
        read_as_pandas_does(schema, columns.everything)
        return columns

    def _pair(self, row: Row, unit: UnitSpec, columns: ParquetColumns) -> Pair:
        identity = pair_id(unit.name, row.key)
        captions: tuple[str, ...] = ()
        label: str | None = None
        kept: tuple[str | None, ...] = ()
        try:
            if row.error is not None:
                raise row.error
            kept = kept_of(row, columns, self.data)
            captions, label = captions_and_label(row, columns)
            image, path = _image(row, unit, columns.image)
            name = path if columns.id is None else None
            return Pair(identity, unit.source_uri, image, captions, label, None, kept, image_name=name)
        except PairError as exc:
            return broken_pair(identity, unit.source_uri, exc, captions=captions, label=label, kept=kept)


def _image(row: Row, unit: UnitSpec, column: str) -> tuple[bytes, str | None]:
    """The encoded image, and the path that the row has of it, also where its bytes are there."""
    value, path = cell(row, column), None
    if isinstance(value, dict):
        path, value = str(value.get("path") or "") or None, value.get("bytes")
        value = path if value is None else value
    if value is None or value == "":
        raise ReadError(f"column '{column}' is empty", remedy="add an image or remove the pair")
    if isinstance(value, str):
        return read_image_file(value, folder_of(unit.source_uri)), value
    return bytes(value), path
