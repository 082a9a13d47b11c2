"""The plan on disk: every unit of a run, written once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.datasets import UnitSpec
from smoothcert.errors import JobError, RunDirectoryError
from smoothcert.redaction import without_secrets
from smoothcert.storage.filesystem import Storage

PLAN = pa.schema(
    [
        pa.field("unit_id", pa.string(), nullable=False),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("stop", pa.int64(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("offset_pair", pa.int64(), nullable=False),
        pa.field("source_name", pa.string(), nullable=False),
        pa.field("repeated", pa.list_(pa.field("element", pa.int64())), nullable=False),
    ]
)
"""One row per unit; the fields of ``UnitSpec``."""

_BATCH = 4096


def unit_to_mapping(unit: UnitSpec) -> dict[str, Any]:
    """A unit as plain data."""
    return {**{name: getattr(unit, name) for name in PLAN.names}, "repeated": list(unit.repeated)}


def unit_from_mapping(data: Mapping[str, Any]) -> UnitSpec:
    """The unit that ``unit_to_mapping`` described."""
    known = {field.name for field in dataclasses.fields(UnitSpec)}
    return UnitSpec(**{**{k: v for k, v in data.items() if k in known}, "repeated": tuple(data["repeated"])})


def write_plan(storage: Storage, file: str, units: Iterable[UnitSpec]) -> tuple[int, int]:
    """Write the units to a new file, in order, holding few of them in memory.

    Returns:
        Numbers of units and of pairs.

    Raises:
        StoreError: writing failed.
        JobError: the URI of a source file carries credentials, which the plan and every row would show.
    """
    count = pairs = 0
    with storage.open_output(file) as stream, pq.ParquetWriter(stream, PLAN, compression="zstd") as writer:
        for batch in _batches(units):
            for uri in {unit.source_uri for unit in batch}:
                if without_secrets(uri) != uri:
                    raise JobError(
                        f"the URI of a source file has credentials or a query string: {without_secrets(uri)}",
                        remedy="use a plain URL; stores take credentials from their usual chain",
                    )
            writer.write_table(pa.Table.from_pylist([unit_to_mapping(unit) for unit in batch], schema=PLAN))
            count += len(batch)
            pairs += sum(len(unit) for unit in batch)
    return count, pairs


def read_plan(storage: Storage, file: str, units: int) -> list[UnitSpec]:
    """The units of a plan.

    Raises:
        RunDirectoryError: there are not ``units`` of them.
        StoreError: reading failed.
    """
    with storage.open_input(file) as stream:
        table = pq.read_table(stream)
    if table.num_rows != units:
        raise RunDirectoryError(
            f"'{storage.full_url(file)}' holds {table.num_rows} units where run.json says {units}",
            remedy="restore the file, or start a new run directory",
        )
    # columns first: ten times faster than a dictionary per row
    columns = [table[name].to_pylist() for name in PLAN.names]
    return [
        UnitSpec(unit_id, uri, start, stop, offset, offset_pair, name, tuple(repeated))
        for unit_id, uri, start, stop, offset, offset_pair, name, repeated in zip(*columns, strict=True)
    ]


def _batches(units: Iterable[UnitSpec]) -> Iterator[list[UnitSpec]]:
    batch: list[UnitSpec] = []
    for unit in units:
        batch.append(unit)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
