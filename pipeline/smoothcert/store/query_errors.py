"""What is wrong with a user's SQL, in words that help; and what may run at all."""

from __future__ import annotations

import duckdb

from smoothcert.errors import QueryError, did_you_mean

_READING = ("SELECT", "EXPLAIN")
"""DESCRIBE, SHOW, SUMMARIZE, VALUES and FROM are SELECT statements to DuckDB."""


def read_only(connection: duckdb.DuckDBPyConnection, text: str) -> str:
    """The one statement of ``text``.

    Raises:
        QueryError: it does not parse, is empty, is more than one, or would do more than read.
    """
    try:
        statements = connection.extract_statements(text)
    except duckdb.Error as exc:
        raise explain(exc, text, connection) from exc
    if len(statements) != 1:
        raise QueryError(
            f"the SQL has {len(statements)} statements: {_shown(text)}", remedy="give exactly one statement"
        )
    kind = statements[0].type.name
    if kind not in _READING:
        raise QueryError(
            f"{kind} is not allowed, runs are only read: {_shown(text)}",
            remedy="use SELECT, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN; results are written by --format",
        )
    return str(statements[0].query)


def explain(error: duckdb.Error, text: str, connection: duckdb.DuckDBPyConnection) -> QueryError:
    """DuckDB's error as ours: its message, the SQL, and what to do."""
    lines = [line.rstrip() for line in str(error).strip().splitlines()]
    message = "\n  ".join(line for line in lines if line)
    return QueryError(f"{message}\n  in: {_shown(text)}", remedy=_remedy(error, str(error), connection))


def _remedy(error: duckdb.Error, message: str, connection: duckdb.DuckDBPyConnection) -> str:
    if isinstance(error, duckdb.PermissionException):
        return "queries read the given runs only; name other runs on the command line"
    if isinstance(error, duckdb.OutOfMemoryException):
        return "select fewer columns or rows, or aggregate"
    if isinstance(error, duckdb.InterruptException):
        return "the query was interrupted"
    if isinstance(error, duckdb.BinderException) and "column" in message.lower():
        return _columns(message, connection)
    if isinstance(error, duckdb.CatalogException) and "function" in message.lower():
        return (
            "smoothcert adds fcsb, angular_bound, angular_radius, margin_radius and ebh to DuckDB's functions"
        )
    if isinstance(error, (duckdb.CatalogException, duckdb.BinderException)):
        return "views: " + ", ".join(view for view, _ in _catalogue(connection))
    if isinstance(error, duckdb.ParserException):
        return "check the SQL where the arrow points"
    return "check the SQL; 'DESCRIBE certificates' lists columns and types"


def _columns(message: str, connection: duckdb.DuckDBPyConnection) -> str:
    catalogue = dict(_catalogue(connection))
    word = message.partition('"')[2].partition('"')[0]
    every = {name for names in catalogue.values() for name in names}
    listed = "; ".join(f"{view}: {', '.join(names)}" for view, names in catalogue.items())
    return f"columns are{did_you_mean(word, every)} {listed}"


def _catalogue(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, list[str]]]:
    rows = connection.execute(
        "SELECT table_name, list(column_name ORDER BY column_index) FROM duckdb_columns() "
        "WHERE schema_name = 'main' AND database_name = 'memory' AND NOT internal GROUP BY 1 ORDER BY 1"
    ).fetchall()
    return [(str(view), list(names)) for view, names in rows]


def _shown(text: str) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= 300 else one_line[:297] + "..."
