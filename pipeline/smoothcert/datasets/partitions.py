"""Columns that folders spell: ``label=zero/part-0.parquet`` has the column ``label`` with the one value ``zero``."""

from __future__ import annotations

from urllib.parse import unquote

_NOTHING = "__HIVE_DEFAULT_PARTITION__"


def partition_values(uri: str) -> dict[str, str | None]:
    """Column -> value for each ``column=value`` folder of a file's path; of two with one name the inner counts.

    A column inside the file goes before one of its folders.
    """
    found: dict[str, str | None] = {}
    for part in uri.split("/")[:-1]:
        column, mark, value = part.partition("=")
        if mark and column:
            found[unquote(column)] = None if value in ("", _NOTHING) else unquote(value)
    return found
