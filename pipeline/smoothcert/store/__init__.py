"""Run directories: parts, commits, and SQL over what is committed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smoothcert.store.attack_table import ATTACKS
from smoothcert.store.columns import Column, TableSchema
from smoothcert.store.commit_record import Commit
from smoothcert.store.commits import CommitLog
from smoothcert.store.filesystem import Storage, join
from smoothcert.store.manifest import Committed
from smoothcert.store.parts import PartFile, new_attempt
from smoothcert.store.rows import rows_to_table
from smoothcert.store.run_directory import RunDirectory
from smoothcert.store.run_info import RunIdentity, RunInfo, run_name
from smoothcert.store.tables import CERTIFICATES, TABLES

if TYPE_CHECKING:
    from smoothcert.store.export import write_result
    from smoothcert.store.query import Query, open_query

__all__ = [
    "ATTACKS",
    "CERTIFICATES",
    "Column",
    "Commit",
    "CommitLog",
    "Committed",
    "PartFile",
    "Query",
    "RunDirectory",
    "RunIdentity",
    "RunInfo",
    "Storage",
    "TABLES",
    "TableSchema",
    "join",
    "new_attempt",
    "open_query",
    "rows_to_table",
    "run_name",
    "write_result",
]

_LATER = {"Query": "query", "open_query": "query", "write_result": "export"}


def __getattr__(name: str) -> Any:
    """Load DuckDB only when a query is asked for: workers write rows without it."""
    if name not in _LATER:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
