"""From rows in memory to an Arrow table that keeps the published schema, or to an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smoothcert.errors import StoreError, did_you_mean
from smoothcert.redaction import redact
from smoothcert.store.tables.certificates import CERTIFICATES
from smoothcert.store.tables.columns import Column, TableSchema

_BUG = "this is a bug in smoothcert, not in your data; please report it with this message"


def rows_to_table(rows: Sequence[Any], schema: TableSchema = CERTIFICATES, **constants: object) -> pa.Table:
    """Rows as an Arrow table with exactly the schema's columns.

    Args:
        rows: mappings or dataclass instances, all of one kind; every column must be in each, none else may
            be.
        schema: the table they belong to.
        constants: columns that are the same in all rows and not in them, e.g. ``run_id``.

    Raises:
        StoreError: a column is unknown, missing or of the wrong type; NULL, NaN or infinity stands where it
            may not; a listed value is not one of the column's; a pair occurs twice.
    """
    _check_names(rows, schema, constants)
    as_mappings = bool(rows) and isinstance(rows[0], Mapping)
    arrays = []
    for column in schema.columns:
        if column.name in constants:
            values = [constants[column.name]] * len(rows)
        elif as_mappings:
            values = [row[column.name] for row in rows]
        else:
            values = [getattr(row, column.name) for row in rows]
        if column.name == "error_message":
            # it may quote the URL of an image, signed or with a login
            values = [redact(value) for value in values]
        arrays.append(_check_column(_converted(values, column, schema), column, schema))
    table = pa.Table.from_arrays(arrays, schema=schema.arrow)
    _check_once(table, schema)
    return table


def _check_names(rows: Sequence[Any], schema: TableSchema, constants: Mapping[str, object]) -> None:
    known = [column.name for column in schema.columns]
    kinds: dict[object, set[str]] = {}
    for row in rows:
        if isinstance(row, Mapping):
            kinds.setdefault(frozenset(row), set(row))
        elif is_dataclass(row):
            if type(row) not in kinds:
                kinds[type(row)] = {field.name for field in fields(row)}
        else:
            raise StoreError(f"a row of '{schema.name}' is a {type(row).__name__}", remedy=_BUG)
    for names in [*kinds.values(), *([] if kinds else [set(known) - set(constants)])]:
        for name in sorted((names | set(constants)) - set(known)):
            raise StoreError(
                f"table '{schema.name}' has no column '{name}'{did_you_mean(name, known)}", remedy=_BUG
            )
        for name in known:
            if name not in names and name not in constants:
                raise StoreError(f"a row of '{schema.name}' lacks the column '{name}'", remedy=_BUG)
            if name in names and name in constants:
                raise StoreError(f"column '{name}' of '{schema.name}' is given twice", remedy=_BUG)


def _converted(values: list[Any], column: Column, schema: TableSchema) -> pa.Array:
    if pa.types.is_integer(column.type):
        # pyarrow would cut 1.5 to 1 without a word
        odd = [v for v in values if v is not None and not isinstance(v, (int, np.integer))]
        if odd:
            raise StoreError(
                f"column '{column.name}' of '{schema.name}' takes {column.type}, not {odd[0]!r}", remedy=_BUG
            )
    try:
        # from_pandas=False: NaN stays NaN here, so that the check below can refuse it
        return pa.array(values, type=column.type, from_pandas=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, OverflowError, ValueError) as exc:
        raise StoreError(
            f"column '{column.name}' of '{schema.name}' takes {column.type}: {exc}", remedy=_BUG
        ) from exc


def _check_column(array: pa.Array, column: Column, schema: TableSchema) -> pa.Array:
    name = f"column '{column.name}' of '{schema.name}'"
    if array.null_count and not column.nullable:
        raise StoreError(f"{name} is NULL in {array.null_count} rows, which it may not be", remedy=_BUG)
    flat = array.flatten() if pa.types.is_list(column.type) else array
    if pa.types.is_floating(flat.type):
        numbers = flat.drop_null().to_numpy(zero_copy_only=False)
        # vacuous is NULL on disk: NaN would compare as larger than every bound in SQL
        if np.isnan(numbers).any():
            raise StoreError(f"{name} holds NaN; nothing certified is written as NULL", remedy=_BUG)
        if not column.infinite and np.isinf(numbers).any():
            raise StoreError(f"{name} holds infinity", remedy=_BUG)
    if column.values:
        strange = set(pc.unique(flat.drop_null()).to_pylist()) - set(column.values)
        if strange:
            raise StoreError(f"{name} holds {sorted(strange)}; allowed: {list(column.values)}", remedy=_BUG)
    return array


def _check_once(table: pa.Table, schema: TableSchema) -> None:
    counts = table.group_by(list(schema.key)).aggregate([([], "count_all")])
    doubled = counts.filter(pc.greater(counts["count_all"], 1))
    if len(doubled):
        (first,) = doubled.slice(0, 1).select(list(schema.key)).to_pylist()
        shown = ", ".join(f"{name} '{value}'" for name, value in first.items())
        raise StoreError(f"{shown} occurs twice in one part of '{schema.name}'", remedy=_BUG)
