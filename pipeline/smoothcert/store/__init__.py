"""Run directories: parts, commits, and SQL over what is committed.

``query`` is imported from its own module, so that workers need not load DuckDB.
"""

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

__all__ = [
    "CERTIFICATES",
    "Column",
    "Commit",
    "CommitLog",
    "Committed",
    "PartFile",
    "RunDirectory",
    "RunIdentity",
    "RunInfo",
    "Storage",
    "TABLES",
    "TableSchema",
    "join",
    "new_attempt",
    "rows_to_table",
    "run_name",
]
