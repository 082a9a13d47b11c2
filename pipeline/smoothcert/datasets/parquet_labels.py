"""Labels of a Parquet file, counted by value: no row is looked at."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from smoothcert.datasets.columns import ParquetColumns
from smoothcert.datasets.files import store_trouble
from smoothcert.datasets.labels import LabelTally, label_from
from smoothcert.datasets.records import UnitSpec
from smoothcert.errors import LabelError
from smoothcert.storage.steady import is_transient


def count_column(
    reader: pq.ParquetFile, unit: UnitSpec, column: str, class_names: Sequence[str], tally: LabelTally
) -> None:
    """Count the labels in a unit's rows; those in damaged pages count as refused.

    Raises:
        SourceError: the store fails.
    """
    first = 0
    for group in range(reader.metadata.num_row_groups):
        size = reader.metadata.row_group(group).num_rows
        low, high = max(unit.start, first), min(unit.stop, first + size)
        if low < high:
            try:
                values = reader.read_row_group(group, columns=[column]).column(column)
            except Exception as exc:  # damage and the store's own error types come the same way
                with store_trouble(unit.source_uri, f"read the labels of row group {group} in"):
                    if is_transient(exc):
                        raise exc
                tally.refused += high - low
            else:
                count_values(values.slice(low - first, high - low), column, class_names, tally)
        first += size


def count_fixed(columns: ParquetColumns, rows: int, tally: LabelTally) -> None:
    """Count a label that all rows of a file share: that of its folder, or none."""
    if columns.label is None:
        tally.add(None, rows)
        return
    try:
        value = columns.fixed.get(columns.label)
        tally.add(label_from(value, f"column '{columns.label}'", columns.class_names), rows)
    except LabelError:
        tally.refused += rows


def count_values(values: pa.ChunkedArray, column: str, class_names: Sequence[str], tally: LabelTally) -> None:
    """Count the labels in a column."""
    if pa.types.is_null(values.type):
        tally.add(None, len(values))
        return
    for entry in pc.value_counts(values):
        count = entry["counts"].as_py()
        try:
            tally.add(label_from(entry["values"].as_py(), f"column '{column}'", class_names), count)
        except (LabelError, UnicodeDecodeError):
            tally.refused += count
