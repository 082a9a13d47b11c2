"""The committed files of a run: a dataset that DuckDB scans, filters and projections pushed into it, or read whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from smoothcert.storage.filesystem import Storage
from smoothcert.store.tables.columns import TableSchema


class CommittedFiles(pads.FileSystemDataset):  # type: ignore[misc]  # pyarrow has no types
    """A dataset whose scans cannot hang.

    pyarrow's own ``Scanner.to_reader`` starts reading while it holds Python's lock. When a file system written in
    Python fails at that moment, the reading thread waits for the lock inside Arrow's, and both wait for ever.
    ``Scanner.to_batches`` starts without the lock, so DuckDB is given a reader on top of that.

    Attributes:
        failures: what reading raised, for whoever explains it: DuckDB keeps only the text.
    """

    failures: list[Exception]

    def scanner(self, **options: Any) -> _Scanner:
        """What DuckDB calls for every scan, with ``columns`` and ``filter``."""
        return _Scanner(super().scanner(**options), self.failures)


class _Scanner:
    def __init__(self, scanner: pads.Scanner, failures: list[Exception]) -> None:
        self._scanner = scanner
        self._failures = failures
        self.projected_schema: pa.Schema = scanner.projected_schema

    def to_reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(self.projected_schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        # started at the first pull, not before: DuckDB may ask for a reader that it never reads
        try:
            yield from self._scanner.to_batches()
        except Exception as exc:
            self._failures.append(exc)
            raise


def committed_files(
    storage: Storage, schema: TableSchema, files: list[str], failures: list[Exception]
) -> CommittedFiles:
    """A dataset of these files; none is opened before it is scanned.

    Args:
        storage: the run directory.
        schema: of their table; a nullable column that an older file lacks reads as NULL.
        files: paths below the run directory.
        failures: gets what reading raises.
    """
    parquet = pads.ParquetFileFormat()
    filesystem = storage.arrow_filesystem()
    fragments = [parquet.make_fragment(storage.path(file), filesystem) for file in files]
    dataset = CommittedFiles(fragments, schema.arrow.remove_metadata(), parquet, filesystem)
    dataset.failures = failures
    return dataset


def read_files(storage: Storage, schema: TableSchema, files: list[str]) -> pa.Table:
    """All rows of these files, which are small: a file takes a third of what it takes as part of a dataset.

    Args:
        storage: the run directory.
        schema: of their table; a nullable column that an older file lacks reads as NULL.
        files: paths below the run directory.

    Raises:
        StoreError: one is missing or cannot be read.
        pyarrow.ArrowException, OSError: one is cut or damaged.
    """
    wanted = schema.arrow.remove_metadata()
    tables = [_as_declared(_read(data), wanted) for _, data in storage.read_many(files)]
    return pa.concat_tables(tables).combine_chunks() if tables else wanted.empty_table()


def _read(data: bytes) -> pa.Table:
    return pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)


def _as_declared(table: pa.Table, wanted: pa.Schema) -> pa.Table:
    if table.schema.equals(wanted):
        return table
    columns = [
        table[column.name].cast(column.type)
        if column.name in table.column_names
        else pa.nulls(table.num_rows, column.type)
        for column in wanted
    ]
    return pa.Table.from_arrays(columns, schema=wanted)
