"""The committed files of a run as a dataset that DuckDB scans, with filters and projections pushed into the reader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads

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
