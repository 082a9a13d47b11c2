"""SQL over committed rows: views and functions on DuckDB, and results as files."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smoothcert.sql.export import write_result
    from smoothcert.sql.query import Query, asking, open_query

__all__ = ["Query", "asking", "open_query", "write_result"]

_HOME = {"Query": "query", "asking": "query", "open_query": "query", "write_result": "export"}


def __getattr__(name: str) -> object:
    # DuckDB is loaded when a query is asked for: workers write rows without it
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
