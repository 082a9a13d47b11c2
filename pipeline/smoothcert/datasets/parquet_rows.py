"""Rows of a Parquet file, one after another, with bounded memory; damage costs only the rows it touches."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from smoothcert.datasets.files import local_path, open_binary, store_trouble
from smoothcert.datasets.records import UnitSpec, pair_id
from smoothcert.errors import PairError, ReadError, SourceError
from smoothcert.storage.steady import is_transient

BATCH_ROWS = 32
"""Rows in memory at once; images dominate them."""
BUFFER_BYTES = 1 << 20
"""A column chunk is read through a window of this size, not whole."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: ``index`` into ``batch``, or an ``error`` when its page cannot be decoded."""

    key: str | int
    batch: pa.RecordBatch
    index: int
    error: PairError | None = None


@contextmanager
def open_parquet(uri: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file opened so that column chunks are streamed and page checksums, if any, are checked.

    Raises:
        SourceError: it cannot be opened.
    """
    with store_trouble(uri, "open the Parquet file"):
        path = local_path(uri)
        # nothing ahead of what is asked for: a unit is not to read its neighbours' row groups
        source = open_binary(uri, ahead_bytes=1) if path is None else pa.OSFile(path)
        reader = pq.ParquetFile(
            source, buffer_size=BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
        )
    try:
        yield reader
    finally:
        reader.close(force=True)


def group_rows(
    reader: pq.ParquetFile,
    unit: UnitSpec,
    columns: list[str],
    id_column: str | None,
    only: Collection[str] | None,
) -> Iterator[Row]:
    """The unit's rows in order; with ``only``, those of these pair ids.

    Row groups without a wanted row are not read. A page that cannot be decoded makes an error of the rest of
    its row group's rows, if the store still delivers the bytes.

    Raises:
        SourceError: the file has fewer rows than were planned, or the store fails.
    """
    if reader.metadata.num_rows < unit.stop:
        raise SourceError(
            f"{unit.source_uri} has {reader.metadata.num_rows} rows, but the plan has rows up to {unit.stop}",
            remedy="the file changed after planning: restore it, or start a new run",
        )
    first = 0
    for group in range(reader.metadata.num_row_groups):
        size = reader.metadata.row_group(group).num_rows
        low, high = max(unit.start, first), min(unit.stop, first + size)
        if low < high and _wanted(unit, low, high, id_column, only):
            for position, row in _one_group(reader, unit.source_uri, group, first, columns, id_column):
                if position >= high:
                    break
                if position >= low and (only is None or pair_id(unit.name, row.key) in only):
                    yield row
        first += size


def check_keys(reader: pq.ParquetFile, column: str | None, uri: str) -> None:
    """Raise ``SourceError`` unless the id column names every row differently."""
    if column is not None:
        check_key_column(reader.read([column]).column(column), column, uri)


def check_key_column(keys: pa.ChunkedArray, column: str, uri: str) -> None:
    """Raise ``SourceError`` unless the values are text or integers, and each is there once."""
    if not (
        pa.types.is_integer(keys.type) or pa.types.is_string(keys.type) or pa.types.is_large_string(keys.type)
    ):
        raise SourceError(
            f"{uri}: column '{column}' (data.columns.id) is {keys.type}, not text or integers",
            remedy="name another column in data.columns.id, or null for row numbers",
        )
    counts = pc.value_counts(keys)
    doubled = counts.filter(pc.greater(counts.field("counts"), 1))
    complaint = ""
    if keys.null_count:
        complaint = f"is null in {keys.null_count} rows"
    elif len(doubled):
        complaint = f"holds {doubled[0]['values'].as_py()!r} {doubled[0]['counts'].as_py()} times"
    if complaint:
        raise SourceError(
            f"{uri}: column '{column}' (data.columns.id) {complaint}",
            remedy="an id must be unique in its file; set data.columns.id to null for row numbers",
        )


def _wanted(unit: UnitSpec, low: int, high: int, id_column: str | None, only: Collection[str] | None) -> bool:
    if only is None or id_column is not None:
        return True
    return any(pair_id(unit.name, row) in only for row in range(low, high))


def _one_group(
    reader: pq.ParquetFile, uri: str, group: int, first: int, columns: list[str], id_column: str | None
) -> Iterator[tuple[int, Row]]:
    """(position in the file, row) for a whole row group; batches always start at the group's start."""
    position, stop = first, first + reader.metadata.row_group(group).num_rows
    try:
        for batch in reader.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False):
            for index in range(batch.num_rows):
                key = position if id_column is None else batch.column(id_column)[index].as_py()
                yield position, Row(key, batch, index)
                position += 1
    except Exception as exc:  # damage and the store's own error types come the same way
        with store_trouble(uri, f"read row group {group} of"):
            if is_transient(exc):
                raise exc  # the bytes did not come: that says nothing about the rows
        _check_store(reader, uri, group, exc)
        yield from _damaged_rows(reader, uri, group, position, stop, id_column, exc)


def _damaged_rows(
    reader: pq.ParquetFile, uri: str, group: int, start: int, stop: int, id_column: str | None, exc: Exception
) -> Iterator[tuple[int, Row]]:
    reason = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
    keys = None
    if id_column is not None:
        with store_trouble(uri, f"read the ids of row group {group} in"):
            keys = reader.read_row_group(group, columns=[id_column]).column(id_column)
    nothing = pa.RecordBatch.from_pydict({})
    size = reader.metadata.row_group(group).num_rows
    for position in range(start, stop):
        key = position if keys is None else keys[position - (stop - size)].as_py()
        error = ReadError(
            f"row group {group} of {uri} is damaged at or before row {position}: {reason}",
            remedy="write the file again from the original data",
        )
        yield position, Row(key, nothing, 0, error)


def _check_store(reader: pq.ParquetFile, uri: str, group: int, exc: Exception) -> None:
    """Tell damage from a store that fails: the bytes of a damaged row group can still be read."""
    metadata = reader.metadata.row_group(group)
    with store_trouble(uri, f"read row group {group} of"), open_binary(uri) as stream:
        for index in range(metadata.num_columns):
            chunk = metadata.column(index)
            start = min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset)))
            stream.seek(start)
            left = chunk.total_compressed_size
            while left:
                got = len(stream.read(min(left, BUFFER_BYTES)))
                if not got:
                    raise EOFError(f"the file ends inside row group {group} ({exc})")
                left -= got
