"""Cells of Parquet rows as captions and labels."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from smoothcert.datasets.captions import captions_from, label_from, not_utf8
from smoothcert.datasets.columns import ParquetColumns
from smoothcert.datasets.parquet_rows import Row
from smoothcert.errors import ReadError


def cell(row: Row, column: str) -> Any:
    """One value.

    Raises:
        CaptionError: it is text that is not valid UTF-8.
        ReadError: it is damaged.
    """
    try:
        return row.batch.column(column)[row.index].as_py()
    except UnicodeDecodeError as exc:
        raise not_utf8(f"column '{column}'", exc) from None
    except pa.ArrowInvalid as exc:
        raise ReadError(f"column '{column}' is damaged: {exc}", remedy="write the file again") from None


def captions_and_label(row: Row, columns: ParquetColumns) -> tuple[tuple[str, ...], str | None]:
    """The row's captions and its label, if any.

    Raises:
        CaptionError: one of them is not text.
    """
    value, where = cell(row, columns.caption), f"column '{columns.caption}'"
    if columns.caption_names:
        value = label_from(value, where, columns.caption_names)
    captions = captions_from(value, where)
    if columns.label is None:
        return captions, None
    return captions, label_from(cell(row, columns.label), f"column '{columns.label}'", columns.class_names)
