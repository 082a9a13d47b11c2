"""Times in nanoseconds, which Python's own types do not hold: one text for them in every process."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa


def read_as_pandas_does(schema: pa.Schema, names: Iterable[str]) -> None:
    """Let pyarrow have pandas for values in nanoseconds, also in a process that keeps it out (``arrow_alone``).

    Without pandas, pyarrow refuses points and spans of time that are no whole microseconds, and spans that are have
    another text: a label would depend on the process that reads it.

    Args:
        schema: of a file.
        names: its columns that are read.
    """
    # the text of a type has those of all types inside it; a name that looks like one costs an import
    if any("[ns" in str(schema.field(name).type) for name in names):
        pa.nulls(0).to_pandas()
