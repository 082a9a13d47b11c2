"""Run directories: the plan, parts, commits, and what workers say."""

from smoothcert.store.commit_record import Commit
from smoothcert.store.commits import CommitLog
from smoothcert.store.manifest import Committed
from smoothcert.store.parts import PartFile, new_attempt
from smoothcert.store.run_directory import RunDirectory
from smoothcert.store.run_info import RunIdentity, RunInfo, run_name
from smoothcert.store.tables import ATTACKS, CERTIFICATES, TABLES, Column, TableSchema, rows_to_table

__all__ = [
    "ATTACKS",
    "CERTIFICATES",
    "Column",
    "Commit",
    "CommitLog",
    "Committed",
    "PartFile",
    "RunDirectory",
    "RunIdentity",
    "RunInfo",
    "TABLES",
    "TableSchema",
    "new_attempt",
    "rows_to_table",
    "run_name",
]
