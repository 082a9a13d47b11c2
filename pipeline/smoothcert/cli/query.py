"""``smoothcert query``: SQL over what is committed."""

from __future__ import annotations

import io
import shutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smoothcert.catalogue.certificates import sql_functions
from smoothcert.errors import QueryError
from smoothcert.printable import printable

if TYPE_CHECKING:
    import pyarrow as pa

HELP = (
    "Ask one or more runs in SQL (DuckDB, read-only).\n\n"
    "Views: certificates, bounds, quarantine, units, runs, certified_share, leaderboard. "
    f"Functions: {', '.join(sql_functions())}, share_interval, mean_interval, median_interval, quantile_interval, "
    "ebh(target, q), whose targets are in SELECT targets FROM runs."
)


class OutputFormat(StrEnum):
    """How to print."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


def query(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN [RUN...] SQL", help="Run directories, or directories of runs, then one SQL text."
        ),
    ],
    format: Annotated[OutputFormat, typer.Option(help="Output format.")] = OutputFormat.table,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file instead of the terminal.")
    ] = None,
) -> None:
    """Query one or more runs in SQL, and print or write the answer."""
    if len(arguments) < 2:
        raise QueryError(
            "query needs at least one run directory, followed by the SQL",
            remedy='e.g. smoothcert query runs/digits-1a2b3c4d "SELECT count(*) FROM certificates"',
        )
    *urls, sql = arguments
    from smoothcert.sql import open_query, write_result

    with open_query(urls) as opened:
        result = opened.sql(sql)
    if output is not None:
        with output.open("wb") as stream:
            write_result(result, format.value, stream)
    elif sys.stdout.isatty():
        _show(result, format)
    else:
        write_result(result, format.value, sys.stdout.buffer)


def _show(result: pa.Table, format: OutputFormat) -> None:
    """Print a result on a terminal, which must not obey what is in it."""
    from smoothcert.sql import write_result

    if format is OutputFormat.parquet:
        raise QueryError(
            "--format parquet cannot be shown on a terminal", remedy="name a file: --output result.parquet"
        )
    text = io.BytesIO()
    write_result(result, format.value, text, width=shutil.get_terminal_size().columns)
    # carriage returns end the lines of CSV
    sys.stdout.write(printable(text.getvalue().decode().replace("\r\n", "\n")))
