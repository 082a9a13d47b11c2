"""Pairs in Arrow files, as ``save_to_disk`` of Hugging Face datasets writes them."""

from __future__ import annotations

import json
from array import array
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import pyarrow as pa

from smoothcert.datasets.columns import ParquetColumns
from smoothcert.datasets.files import ListedFile, local_path, open_binary, store_trouble
from smoothcert.datasets.identity import sampled_digest
from smoothcert.datasets.labels import LabelTally
from smoothcert.datasets.layout import RowGroups
from smoothcert.datasets.parquet_cells import captions_of
from smoothcert.datasets.parquet_labels import count_fixed, count_values
from smoothcert.datasets.parquet_rows import Row, check_key_column
from smoothcert.datasets.parquet_source import ParquetSource
from smoothcert.datasets.records import Pair, UnitSpec, pair_id
from smoothcert.datasets.source import Scan
from smoothcert.errors import PairError, SourceError

_FILE_MARK = b"ARROW1"
_STATE = "state.json"


class ArrowSource(ParquetSource):
    """A ``Source`` of Arrow files, streams or with a footer; a data set with splits is a folder of such folders.

    Where a folder has a ``state.json``, its ``_data_files`` say which files are the data; else files that begin
    with ``cache-`` are left out. Files of this machine are mapped, so that a unit touches its own batches alone;
    those of other stores are read from their beginning up to the unit.
    """

    suffixes = (".arrow",)

    def list_files(self) -> list[ListedFile]:
        """The data files alone.

        Raises:
            SourceError: a data set was saved with a selection of rows beside them.
        """
        chosen: list[ListedFile] = []
        said: dict[str, set[str] | None] = {}
        for file in super().list_files():
            folder, _, name = file.uri.rpartition("/")
            if folder not in said:
                said[folder] = _data_files(folder)
            data_files = said[folder]
            if data_files is not None and name not in data_files:
                self._left_out.add("file", file.uri, f"'{_STATE}' beside it does not name it")
            elif data_files is None and name.startswith("cache-"):
                self._left_out.add("file", file.uri, "it is a cache of Hugging Face datasets")
            else:
                chosen.append(file)
        if not chosen:
            raise SourceError("data.uri holds no data file of an Arrow data set", remedy="check data.uri")
        return chosen

    def scan(self, file: ListedFile, at_most: int | None) -> Scan:
        """Walk over the batches."""
        with store_trouble(file.uri, "read the Arrow file"):
            with _open(file.uri) as (schema, batches):
                columns = self._columns_of(schema, file.uri)
                sizes, keys = array("q"), []
                for batch in batches:
                    sizes.append(batch.num_rows)
                    if columns.id is not None:
                        keys.append(batch.column(columns.id))
                if columns.id is not None:
                    kind = schema.field(columns.id).type
                    check_key_column(pa.chunked_array(keys, kind), columns.id, file.uri)
            with open_binary(file.uri) as stream:
                return Scan(RowGroups(sizes), sampled_digest(stream))

    def read(self, unit: UnitSpec, only: Collection[str] | None = None) -> Iterator[Pair]:
        """See ``Source.read``."""
        for columns, row in self._rows(unit):
            if only is None or pair_id(unit.name, row.key) in only:
                yield self._pair(row, unit, columns)

    def read_captions(self, unit: UnitSpec) -> Iterator[tuple[str, tuple[str, ...]]]:
        """From the same batches, without their images."""
        for columns, row in self._rows(unit):
            try:
                yield pair_id(unit.name, row.key), captions_of(row, columns)
            except PairError:
                continue

    def count_labels(self, unit: UnitSpec, tally: LabelTally) -> None:
        """Count whole batches by value."""
        for columns, batch, low, high in self._batches(unit):
            if columns.label is None or columns.label in columns.fixed:
                count_fixed(columns, high - low, tally)
            else:
                values = pa.chunked_array([batch.column(columns.label).slice(low, high - low)])
                count_values(values, columns.label, columns.class_names, tally)

    def _rows(self, unit: UnitSpec) -> Iterator[tuple[ParquetColumns, Row]]:
        position = unit.start
        for columns, batch, low, high in self._batches(unit):
            for index in range(low, high):
                key = position if columns.id is None else batch.column(columns.id)[index].as_py()
                yield columns, Row(key, batch, index)
                position += 1

    def _batches(self, unit: UnitSpec) -> Iterator[tuple[ParquetColumns, pa.RecordBatch, int, int]]:
        """The batches of a unit, each with the range of its rows that are the unit's."""
        first = 0
        with (
            store_trouble(unit.source_uri, "read the Arrow file"),
            _open(unit.source_uri) as (schema, batches),
        ):
            columns = self._columns_of(schema, unit.source_uri)
            for batch in batches:
                low, high = max(unit.start, first), min(unit.stop, first + batch.num_rows)
                if low < high:
                    yield columns, batch, low - first, high - first
                first += batch.num_rows
                if first >= unit.stop:
                    return
        raise SourceError(
            f"{unit.source_uri} has {first} rows, but rows up to {unit.stop} were planned",
            remedy="the file changed after planning: restore it, or start a new run",
        )


@contextmanager
def _open(uri: str) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """Schema and batches of an Arrow file of either kind."""
    path = local_path(uri)
    with pa.memory_map(path) if path is not None else pa.PythonFile(open_binary(uri), "r") as source:
        is_file = source.read(len(_FILE_MARK)) == _FILE_MARK
        source.seek(0)
        if is_file:
            reader = pa.ipc.open_file(source)
            yield reader.schema, (reader.get_batch(number) for number in range(reader.num_record_batches))
        else:
            stream = pa.ipc.open_stream(source)
            yield stream.schema, iter(stream)


def _data_files(folder: str) -> set[str] | None:
    """Names that a folder's ``state.json`` gives, or None where there is none."""
    uri = f"{folder}/{_STATE}"
    try:
        with open_binary(uri) as stream:
            state = json.load(stream)
        named = {str(entry["filename"]) for entry in state["_data_files"]}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as exc:
        raise SourceError(f"'{uri}' cannot be read: {exc!r}", remedy="save the data set again") from exc
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise SourceError(
            f"the data set in '{folder}' was saved with a selection of its rows beside it",
            remedy="call flatten_indices() and save_to_disk() again",
        )
    return named
