"""Pairs listed by CSV, TSV, JSON-lines or Parquet files that name images by path."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import BinaryIO

import pyarrow as pa

from smoothcert.datasets.ahead import map_ahead
from smoothcert.datasets.captions import captions_from
from smoothcert.datasets.columns import Complaint, chosen_label, image_path_complaint, require, require_kept
from smoothcert.datasets.files import ListedFile, folder_of, open_binary, store_trouble
from smoothcert.datasets.identity import whole_digest
from smoothcert.datasets.image_folder import ImageFolderSource
from smoothcert.datasets.image_paths import read_image_file
from smoothcert.datasets.image_versions import COVERED, VersionReader
from smoothcert.datasets.kept import kept_values
from smoothcert.datasets.labels import LabelTally, label_from
from smoothcert.datasets.layout import Checkpoints
from smoothcert.datasets.left_out import NAMED, LeftOuts
from smoothcert.datasets.parquet_cells import cell
from smoothcert.datasets.parquet_rows import group_rows, open_parquet
from smoothcert.datasets.parquet_source import ParquetSource
from smoothcert.datasets.partitions import partition_values
from smoothcert.datasets.records import Pair, UnitSpec, broken_pair, pair_id
from smoothcert.datasets.source import FileSource, Scan
from smoothcert.datasets.text_table import CsvTable, Fields, JsonLinesTable, Record, TextTable
from smoothcert.errors import LabelError, PairError, ReadError, SourceError
from smoothcert.job import Columns, DataSection


class ManifestSource(FileSource):
    """A ``Source`` of files that list image paths and captions.

    Paths are relative to the manifest's folder, absolute, or any fsspec URL. The digest covers every byte of
    the manifests, and the images they name as ``ImageVersions`` does. Images are read ahead on threads.
    """

    covers = f"every byte of the manifests; {COVERED}"

    suffixes = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
    recursive = False

    def __init__(self, data: DataSection) -> None:
        super().__init__(data)
        self._parquet = _ParquetManifest(data)

    def leave_out(self, kind: str, name: str, reason: str) -> None:
        """Images beside manifests are what these name."""
        is_image = kind == "file" and name.lower().endswith(ImageFolderSource.suffixes)
        super().leave_out(kind, name, NAMED if is_image else reason)

    def scan(self, file: ListedFile, at_most: int | None) -> Scan:
        """Check the columns and find where records begin."""
        images, left = VersionReader(folder_of(file.uri)), LeftOuts()
        with store_trouble(file.uri, "read the manifest"), open_binary(file.uri) as stream:
            if _is_parquet(file.uri):
                scan = self._parquet.scan(file, at_most)
                layout, pairs = scan.layout, min(scan.layout.pairs, at_most or scan.layout.pairs)
                self._parquet.note_images(file, pairs, images)
            else:
                table = _text_table(stream, file.uri)
                layout = _index(table, self.data, at_most, images)
                for offset in sorted(table.blank):
                    left.add("line", f"{file.name}#byte {offset}", "it is blank")
            return Scan(layout, whole_digest(stream), tuple(left), images.versions)

    def read(self, unit: UnitSpec, only: Collection[str] | None = None) -> Iterator[Pair]:
        """See ``Source.read``."""
        if _is_parquet(unit.source_uri):
            yield from self._parquet.read(unit, only)
            return
        rows = (row for row in _keyed_records(unit, self.data.columns) if only is None or row[0] in only)
        yield from map_ahead(lambda row: _pair(*row, unit.source_uri, self.data), rows)

    def named_images(self, unit: UnitSpec) -> Iterator[tuple[str, str]]:
        """Read the manifest alone."""
        if _is_parquet(unit.source_uri):
            yield from self._parquet.named_images(unit)
            return
        for identity, record in _keyed_records(unit, self.data.columns):
            yield identity, str(record.fields.get(self.data.columns.image))

    def read_captions(self, unit: UnitSpec) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Read the manifest alone."""
        if _is_parquet(unit.source_uri):
            yield from self._parquet.read_captions(unit)
            return
        for identity, record in _keyed_records(unit, self.data.columns):
            try:
                if record.error is None:
                    yield identity, _captions_and_label(record.fields, self.data)[0]
            except PairError:
                continue

    def count_labels(self, unit: UnitSpec, tally: LabelTally) -> None:
        """Read the manifest alone."""
        if _is_parquet(unit.source_uri):
            self._parquet.count_labels(unit, tally)
            return
        for _, record in _keyed_records(unit, self.data.columns):
            if record.error is not None:
                tally.refused += 1
                continue
            try:
                tally.add(_label(record.fields, self.data))
            except LabelError:
                tally.refused += 1


class _ParquetManifest(ParquetSource):
    def image_complaint(self, kind: pa.DataType) -> Complaint | None:
        return image_path_complaint(kind)

    def read(self, unit: UnitSpec, only: Collection[str] | None = None) -> Iterator[Pair]:
        with open_parquet(unit.source_uri) as reader:
            columns = self._columns(reader, unit.source_uri)
            rows = group_rows(reader, unit, columns.everything, columns.id, only)
            yield from map_ahead(lambda row: self._pair(row, unit, columns), rows)

    def note_images(self, file: ListedFile, pairs: int, images: VersionReader) -> None:
        """Note the version of each image that the file's first pairs name."""
        if pairs:
            for _, path in self._paths(UnitSpec("", file.uri, 0, pairs, source_name=file.name)):
                images.add(path)

    def named_images(self, unit: UnitSpec) -> Iterator[tuple[str, str]]:
        return ((pair_id(unit.name, key), str(path)) for key, path in self._paths(unit))

    def _paths(self, unit: UnitSpec) -> Iterator[tuple[str | int, object]]:
        """Key and image path of each pair; None where it cannot be read."""
        with open_parquet(unit.source_uri) as reader:
            columns = self._columns(reader, unit.source_uri)
            wanted = [columns.image, *([] if columns.id is None else [columns.id])]
            for row in group_rows(reader, unit, wanted, columns.id, None):
                try:
                    yield row.key, None if row.error is not None else cell(row, columns.image)
                except PairError:  # reading the pair tells what is wrong with it
                    yield row.key, None


def _is_parquet(uri: str) -> bool:
    return uri.lower().endswith((".parquet", ".pq"))


def _text_table(stream: BinaryIO, uri: str) -> TextTable:
    name = uri.lower()
    if name.endswith((".jsonl", ".ndjson")):
        return JsonLinesTable(stream, uri)
    if name.endswith((".csv", ".tsv")):
        return CsvTable(stream, uri, "\t" if name.endswith(".tsv") else ",")
    raise SourceError(
        f"'{uri}' does not have a manifest's file extension",
        remedy="use a file that ends in .csv, .tsv, .jsonl, .ndjson or .parquet",
    )


def _index(table: TextTable, data: DataSection, at_most: int | None, images: VersionReader) -> Checkpoints:
    layout, wanted = Checkpoints(), data.columns
    known = [*table.columns(), *partition_values(table.uri)]
    if next(table.records(), None) is None:
        return layout
    for option in ("image", "caption", "id"):
        require(getattr(wanted, option), option, known, table.uri)
    chosen_label(wanted, known, table.uri)
    require_kept(data, known, table.uri)
    seen: set[str] = set()
    for record in table.records():
        if wanted.id is not None:
            _check_id(record, wanted.id, seen, table.uri)
        layout.add(record.offset)
        images.add(record.fields.get(wanted.image))
        if layout.count == at_most:
            break
    return layout


def _check_id(record: Record, column: str, seen: set[str], uri: str) -> None:
    """Note the record's id; raises ``SourceError`` unless it is text or an integer, and new."""
    value = record.fields.get(column)
    complaint = ""
    if not isinstance(value, (str, int)):
        complaint = f"is {value!r:.40}"
    elif not str(value).isprintable():
        complaint = f"is {value!r:.40}, not plain text"
    elif str(value) in seen:
        complaint = f"repeats {value!r:.40}"
    if complaint:
        raise SourceError(
            f"'{uri}': column '{column}' (data.columns.id) {complaint} in the record at byte {record.offset}",
            remedy="an id must be unique in its file; set data.columns.id to null for row numbers",
        )
    seen.add(str(value))


def _keyed_records(unit: UnitSpec, columns: Columns) -> Iterator[tuple[str, Record]]:
    """(pair_id, record) for each pair of the unit."""
    uri = unit.source_uri
    position = unit.offset_pair
    with store_trouble(uri, "read the manifest"), open_binary(uri) as stream:
        folders = partition_values(uri)
        for record in _text_table(stream, uri).records(unit.offset):
            record.fields = {**folders, **record.fields}
            if position >= unit.start:
                key = position if columns.id is None else record.fields.get(columns.id)
                yield pair_id(unit.name, str(key)), record
            position += 1
            if position == unit.stop:
                return
    raise SourceError(
        f"'{uri}' ends after {position} records, but the plan has records up to {unit.stop}",
        remedy="the file changed after planning: restore it, or start a new run",
    )


def _pair(identity: str, record: Record, uri: str, data: DataSection) -> Pair:
    captions: tuple[str, ...] = ()
    label: str | None = None
    kept: tuple[str | None, ...] = ()
    try:
        if record.error is not None:
            raise record.error
        kept = kept_values(data, record.fields.get)
        captions, label = _captions_and_label(record.fields, data)
        path = record.fields.get(data.columns.image)
        if not isinstance(path, str) or not path:
            raise ReadError(
                f"column '{data.columns.image}' is {path!r:.40}, not a path",
                remedy="give the path of the image file",
            )
        image = read_image_file(path, folder_of(uri))
        name = path if data.columns.id is None else None
        return Pair(identity, uri, image, captions, label, None, kept, image_name=name)
    except PairError as exc:
        return broken_pair(identity, uri, exc, captions=captions, label=label, kept=kept)


def _captions_and_label(fields: Fields, data: DataSection) -> tuple[tuple[str, ...], str | None]:
    column = data.columns.caption
    if column is None:
        return (), _label(fields, data)
    return captions_from(fields.get(column), f"column '{column}'"), _label(fields, data)


def _label(fields: Fields, data: DataSection) -> str | None:
    column = data.columns.label
    return (
        None
        if column is None
        else label_from(fields.get(column), f"column '{column}'", data.class_names or ())
    )
