"""Writing query results: table, csv, json, parquet."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.errors import QueryError, did_you_mean
from smoothcert.printable import printable
from smoothcert.storage.foreign_errors import translate

_BATCH_ROWS = 8192
_GAP = "  "
_LEAST_WIDTH = 8
"""Columns cut to less than this say nothing: then each gets a line of its own."""


def write_result(
    table: pa.Table, format: str, target: BinaryIO | str | os.PathLike[str], *, width: int | None = None
) -> None:
    """Write a query's result.

    Args:
        table: what ``Query.sql`` returned.
        format: ``table``: aligned text for people, of which a terminal obeys nothing. ``csv``: RFC 4180, UTF-8, NULL
            as nothing and empty text as ``""``, lists as JSON. ``json``: one array of objects; NaN and infinities,
            which JSON lacks, as null.
            ``parquet``: one file.
        target: a binary stream, or a path.
        width: columns of the terminal that a ``table`` has to fit into: too wide cells are cut, and of many columns
            each gets a line of its own. Without it nothing is cut.

    Raises:
        QueryError: there is no such format.
        StoreError: writing to a path failed.
    """
    if format not in _WRITERS:
        raise QueryError(
            f"format='{format}' is unknown{did_you_mean(format, _WRITERS)}",
            remedy="use " + ", ".join(_WRITERS),
        )
    with _stream(target) as stream:
        if format == "table" and width is not None:
            _write_fitting(table, stream, width)
        else:
            _WRITERS[format](table, stream)
        stream.flush()


@contextlib.contextmanager
def _stream(target: BinaryIO | str | os.PathLike[str]) -> Iterator[BinaryIO]:
    if not isinstance(target, (str, os.PathLike)):
        yield target
        return
    try:
        with open(target, "wb") as stream:
            yield stream
    except OSError as exc:
        raise translate(exc, "write", os.fspath(target)) from exc


def _rows(table: pa.Table) -> Iterator[list[Any]]:
    """Rows as lists: two columns may have the same name in SQL."""
    for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
        columns = [column.to_pylist() for column in batch.columns]
        yield from (list(row) for row in zip(*columns, strict=True))


def _write_csv(table: pa.Table, stream: BinaryIO) -> None:
    def line(fields: list[str]) -> bytes:
        return (",".join(fields) + "\r\n").encode()

    stream.write(line([_csv_field(name) for name in table.column_names]))
    for row in _rows(table):
        stream.write(line([_csv_field(value) for value in row]))


def _csv_field(value: Any) -> str:
    if value is None:
        return ""
    text = _text(value)
    if text == "" or any(mark in text for mark in ',"\r\n') or text != text.strip():
        return '"' + text.replace('"', '""') + '"'
    return text


def _write_json(table: pa.Table, stream: BinaryIO) -> None:
    names = _distinct(table.column_names)
    stream.write(b"[")
    for i, row in enumerate(_rows(table)):
        record = {name: _json_value(value) for name, value in zip(names, row, strict=True)}
        stream.write((",\n " if i else "\n ").encode())
        stream.write(json.dumps(record, ensure_ascii=False, allow_nan=False).encode())
    stream.write(b"\n]\n" if table.num_rows else b"]\n")


def _distinct(names: list[str]) -> list[str]:
    """Column names as object keys: a repeated one gets a number, so that no value is lost."""
    taken: set[str] = set()
    result = []
    for name in names:
        candidate, number = name, 1
        while candidate in taken:
            candidate, number = f"{name}_{number}", number + 1
        taken.add(candidate)
        result.append(candidate)
    return result


def _json_value(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, list):
        return [_json_value(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _json_value(item) for key, item in value.items()}
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (list, dict)):
        return json.dumps(_json_value(value), ensure_ascii=False)
    return str(value)


def _write_parquet(table: pa.Table, stream: BinaryIO) -> None:
    # pyarrow closes a stream that it is given; standard output must stay open
    sink = pa.BufferOutputStream()
    pq.write_table(table.rename_columns(_distinct(table.column_names)), sink, compression="zstd")
    stream.write(sink.getvalue())


def _write_table(table: pa.Table, stream: BinaryIO) -> None:
    names, cells = _texts(table)
    _write_grid(table, names, cells, _widths(names, cells), stream)


def _write_fitting(table: pa.Table, stream: BinaryIO, width: int) -> None:
    """The table in lines of at most ``width``."""
    names, cells = _texts(table)
    widths = _fit(_widths(names, cells), width)
    if widths is not None:
        if any(len(cell) > limit for row in [names, *cells] for cell, limit in zip(row, widths, strict=True)):
            cells = [[_cut(cell, limit) for cell, limit in zip(row, widths, strict=True)] for row in cells]
            names = [_cut(name, limit) for name, limit in zip(names, widths, strict=True)]
        _write_grid(table, names, cells, widths, stream)
        return
    longest = max(map(len, names))
    for number, row in enumerate(cells, start=1):
        stream.write(f"-- row {number} {'-' * max(0, min(width, 40) - 8 - len(str(number)))}\n".encode())
        for name, cell in zip(names, row, strict=True):
            stream.write(
                (f"{name.ljust(longest)}  {_cut(cell, max(width - longest - 2, 8))}".rstrip() + "\n").encode()
            )
    stream.write(_row_count(table))


def _fit(widths: list[int], width: int) -> list[int] | None:
    """Widths of columns that fit together, the widest cut first; None where too little would be left of them."""
    room = width - len(_GAP) * (len(widths) - 1)
    if sum(widths) <= room:
        return widths
    low, high = 0, max(widths)
    while low < high:  # the largest width that no column may pass
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sum(min(each, middle) for each in widths) <= room else (low, middle - 1)
    return [min(each, low) for each in widths] if low >= _LEAST_WIDTH else None


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _texts(table: pa.Table) -> tuple[list[str], list[list[str]]]:
    return [_cell(name) for name in table.column_names], [
        [_cell(value) for value in row] for row in _rows(table)
    ]


def _widths(names: list[str], cells: list[list[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(names, *cells, strict=True)]


def _write_grid(
    table: pa.Table, names: list[str], cells: list[list[str]], widths: list[int], stream: BinaryIO
) -> None:
    right = [_is_number(field.type) for field in table.schema]

    def line(row: list[str]) -> bytes:
        padded = [
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(row, widths, right, strict=True)
        ]
        return (_GAP.join(padded).rstrip() + "\n").encode()

    stream.write(line(names))
    stream.write(line(["-" * width for width in widths]))
    for row in cells:
        stream.write(line(row))
    stream.write(_row_count(table))


def _row_count(table: pa.Table) -> bytes:
    return f"({table.num_rows} row{'' if table.num_rows == 1 else 's'})\n".encode()


def _cell(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return "[" + ", ".join(_cell(item) for item in value) + "]"
    return printable(" ".join(_text(value).splitlines()))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


_WRITERS: dict[str, Callable[[pa.Table, BinaryIO], None]] = {
    "table": _write_table,
    "csv": _write_csv,
    "json": _write_json,
    "parquet": _write_parquet,
}
