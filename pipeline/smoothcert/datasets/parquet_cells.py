"""Cells of Parquet rows as captions and labels."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from smoothcert.datasets.captions import captions_from, not_utf8
from smoothcert.datasets.columns import ParquetColumns
from smoothcert.datasets.kept import kept_values
from smoothcert.datasets.labels import label_from
from smoothcert.datasets.parquet_rows import Row
from smoothcert.errors import CaptionError, LabelError, ReadError
from smoothcert.job import DataSection


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


def kept_of(row: Row, columns: ParquetColumns, data: DataSection) -> tuple[str | None, ...]:
    """The row's own columns that the job keeps.

    Raises:
        ReadError: a value is not of its declared type.
    """
    return kept_values(data, lambda name: _cell_or_folder(row, columns, name))


def captions_and_label(row: Row, columns: ParquetColumns) -> tuple[tuple[str, ...], str | None]:
    """The row's captions and its label, if any.

    Raises:
        CaptionError: a caption is not text.
        LabelError: the label names no class.
    """
    return captions_of(row, columns), _label(row, columns)


def captions_of(row: Row, columns: ParquetColumns) -> tuple[str, ...]:
    """The row's captions; none where the job wants none.

    Raises:
        CaptionError: a caption is not text.
    """
    if columns.caption is None:
        return ()
    value, where = _cell_or_folder(row, columns, columns.caption), f"column '{columns.caption}'"
    if columns.caption_names:
        try:
            value = label_from(value, where, columns.caption_names)
        except LabelError as exc:
            raise CaptionError(exc.message, remedy=exc.remedy) from None
    return captions_from(value, where)


def _label(row: Row, columns: ParquetColumns) -> str | None:
    if columns.label is None:
        return None
    value = _cell_or_folder(row, columns, columns.label)
    return label_from(value, f"column '{columns.label}'", columns.class_names)


def _cell_or_folder(row: Row, columns: ParquetColumns, name: str) -> Any:
    return columns.fixed[name] if name in columns.fixed else cell(row, name)
