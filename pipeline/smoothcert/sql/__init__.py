"""SQL over committed rows: views and functions on DuckDB, and results as files."""

from typing import TYPE_CHECKING

from smoothcert.late_names import resolve_late

if TYPE_CHECKING:
    from smoothcert.sql.export import write_result
    from smoothcert.sql.query import Query, asking, open_query

__all__ = ["Query", "asking", "open_query", "write_result"]

_HOME = {"Query": "query", "asking": "query", "open_query": "query", "write_result": "export"}

# DuckDB is loaded when a query is asked for: workers write rows without it
__getattr__, __dir__ = resolve_late(__name__, _HOME, __all__)
