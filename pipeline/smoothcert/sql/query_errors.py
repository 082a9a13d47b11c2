"""What is wrong with a user's SQL, in words that help; and what may run at all."""

from __future__ import annotations

import re

import duckdb

from smoothcert.catalogue.certificates import sql_functions
from smoothcert.errors import QueryError, did_you_mean
from smoothcert.sql.intervals import INTERVALS

_READING = ("SELECT", "EXPLAIN")
"""DESCRIBE, SHOW, SUMMARIZE, VALUES and FROM are SELECT statements to DuckDB."""


def read_only(connection: duckdb.DuckDBPyConnection, text: str) -> duckdb.Statement:
    """The one statement of ``text``, parsed.

    Raises:
        QueryError: it does not parse, is empty, is more than one, or would do more than read.
    """
    try:
        statements = connection.extract_statements(text)
    except duckdb.Error as exc:
        raise explain(exc, text, connection) from exc
    if len(statements) != 1:
        raise QueryError(
            f"the SQL has {len(statements)} statements: {_shorten(text)}",
            remedy="give exactly one SQL statement",
        )
    kind = statements[0].type.name
    if kind not in _READING:
        raise QueryError(
            f"{kind} is not allowed, because runs are read-only: {_shorten(text)}",
            remedy="use SELECT, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN; write results to a file with --output",
        )
    return statements[0]


def explain(error: duckdb.Error, text: str, connection: duckdb.DuckDBPyConnection) -> QueryError:
    """DuckDB's error as ours: its message, the SQL, and what to do."""
    message = str(error).strip()
    inside = _UDF.match(message)
    if inside:
        # one of our functions refused a number: its own words are enough
        return QueryError(
            f"{inside['text']}\n  in: {_shorten(text)}", remedy="check the arguments of the function"
        )
    lines = "\n  ".join(line.rstrip() for line in message.splitlines() if line.strip())
    return QueryError(f"{lines}\n  in: {_shorten(text)}", remedy=_remedy(error, message, text, connection))


_UDF = re.compile(r"Invalid Input Error: Python exception .* the UDF: ValueError: (?P<text>.*)", re.DOTALL)


def _remedy(error: duckdb.Error, message: str, text: str, connection: duckdb.DuckDBPyConnection) -> str:
    for kind, remedy in _REMEDIES:
        if isinstance(error, kind):
            return remedy
    if isinstance(error, duckdb.BinderException) and "ambiguous" in message.lower():
        return "several of the views have this column: write which is meant, e.g. " + _qualified(message)
    if isinstance(error, duckdb.BinderException) and "column" in message.lower():
        return _columns(message, text, connection)
    if isinstance(error, duckdb.CatalogException) and "function" in message.lower():
        names = ", ".join([*sql_functions(), *INTERVALS])
        return f"smoothcert adds {names} and ebh to DuckDB's functions"
    if isinstance(error, (duckdb.CatalogException, duckdb.BinderException)):
        # leaderboard is there as soon as a query names it
        return "views: " + ", ".join(sorted({*_catalogue(connection), "leaderboard"}))
    return "check the SQL; 'DESCRIBE certificates' lists columns and types"


_REMEDIES: tuple[tuple[type[duckdb.Error], str], ...] = (
    (duckdb.PermissionException, "queries can read only the runs given; add other runs on the command line"),
    (duckdb.OutOfMemoryException, "select fewer columns or rows, or aggregate"),
    (duckdb.InterruptException, "the query was interrupted"),
    (duckdb.ParserException, "check the SQL where the arrow points"),
    (duckdb.IOException, "a committed file cannot be read: check the run directory and the store"),
)


def _qualified(message: str) -> str:
    """The first way out that DuckDB offers for an ambiguous name."""
    found = re.search(r"""use: ["']([^"']+)["']""", message)
    return found[1] if found else "certificates.pair_id"


def _columns(message: str, text: str, connection: duckdb.DuckDBPyConnection) -> str:
    catalogue = _catalogue(connection)
    words = set(re.findall(r"\w+", text.lower()))
    used = {view: names for view, names in catalogue.items() if view in words} or catalogue
    wanted = message.partition('"')[2].partition('"')[0]
    near = did_you_mean(wanted, {name for names in used.values() for name in names})
    listed = "; ".join(f"{view} has {', '.join(names)}" for view, names in used.items())
    return f"use a column that exists{near}: {listed}"


def _catalogue(connection: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """Columns of each view."""
    rows = connection.execute(
        "SELECT table_name, list(column_name ORDER BY column_index) FROM duckdb_columns() "
        "WHERE schema_name = 'main' AND database_name = 'memory' AND NOT internal GROUP BY 1 ORDER BY 1"
    ).fetchall()
    return {str(view): list(names) for view, names in rows}


def _shorten(text: str) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= 300 else one_line[:297] + "..."
