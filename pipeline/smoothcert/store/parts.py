"""Part files: one Parquet file per attempt and table, written once, read back before it counts."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.errors import StoreError
from smoothcert.storage.filesystem import Storage
from smoothcert.store.tables.columns import TableSchema

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class PartFile:
    """A written and verified part.

    Attributes:
        table: the table its rows belong to.
        file: path below the run directory.
        rows: number of rows.
        size_bytes: size of the file.
    """

    table: str
    file: str
    rows: int
    size_bytes: int


def new_attempt() -> str:
    """A name for an attempt that nothing else has."""
    return uuid.uuid4().hex[:16]


def require_name(kind: str, name: str) -> str:
    """A unit or attempt name that is safe in file names everywhere.

    Raises:
        StoreError: it is not.
    """
    if not _NAME.fullmatch(name):
        raise StoreError(
            f"{kind}='{name}' is not a valid file name",
            remedy="use at most 100 of the characters A-Z a-z 0-9 . _ -, the first one a letter or digit",
        )
    return name


def write_part(
    storage: Storage, schema: TableSchema, unit_id: str, attempt: str, table: pa.Table
) -> PartFile:
    """Write an attempt's rows of one table and read the footer back.

    Args:
        storage: the run directory.
        schema: the published table; ``table`` must have its schema.
        unit_id: the unit.
        attempt: a name from ``new_attempt``; a part is never overwritten.
        table: the rows.

    Raises:
        StoreError: writing failed, or what arrived is not what was sent. Nothing refers to the file then.
    """
    if not table.schema.equals(schema.arrow):
        raise StoreError(
            f"rows of unit '{unit_id}' do not match the schema of '{schema.name}'",
            remedy="make them by rows_to_table",
        )
    file = f"{schema.name}/{require_name('unit_id', unit_id)}-{require_name('attempt', attempt)}.parquet"
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    if not storage.create(file, data):
        raise StoreError(
            f"'{storage.full_url(file)}' exists already", remedy="name every attempt by new_attempt()"
        )
    part = PartFile(schema.name, file, table.num_rows, len(data))
    verify_part(storage, schema, part)
    return part


def find_missing(storage: Storage, parts: Iterable[PartFile]) -> list[str]:
    """Files of parts that are missing, or have another size than was written; one request for each file.

    Raises:
        StoreError: the store did not answer.
    """
    sizes = {part.file: part.size_bytes for part in parts}
    return [file for file, size in sizes.items() if storage.size_if_present(file) != size]


def verify_part(storage: Storage, schema: TableSchema, part: PartFile) -> None:
    """Compare a stored part with what it should be: its size, rows and columns, from its footer.

    Raises:
        StoreError: it is missing, cut, or different.
    """
    url = storage.full_url(part.file)
    size = storage.size(part.file)
    if size != part.size_bytes:
        raise StoreError(
            f"'{url}' has {size} bytes in the store, {part.size_bytes} were written",
            remedy="check the store; the unit will be repeated",
        )
    with storage.open_input(part.file) as stream:
        footer = pq.ParquetFile(stream)
        rows, arrow = footer.metadata.num_rows, footer.schema_arrow
    if rows != part.rows or not arrow.equals(schema.arrow):
        raise StoreError(
            f"'{url}' holds {rows} rows where {part.rows} were written, or other columns",
            remedy="check the store; the unit will be repeated",
        )
