"""What it means when a committed file could not be read while a query ran."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.storage.foreign_errors import translate
from smoothcert.store.lost import lost_rows
from smoothcert.store.manifest import Committed
from smoothcert.store.parts import PartFile, find_missing
from smoothcert.store.run_directory import RunDirectory
from smoothcert.store.tables.registry import TABLES


def explain_failed_reading(run: RunDirectory, committed: Committed, error: Exception) -> BaseException:
    """The error to raise: which file is lost, cut or damaged, or what kept the store from answering.

    Args:
        run: the run directory.
        committed: its commits, as the query has them.
        error: what reading raised.

    Raises:
        StoreError: the store does not answer now.
    """
    parts = {part.file: part for table in TABLES for part in committed.parts(table)}
    # the names of files are unique, and readers put them into what they say
    named = [part for file, part in parts.items() if file in str(error)]
    damaged = find_missing(run.storage, named or parts.values())
    if not damaged:
        # a page that cannot be decoded is complained of without the name of its file: all are read again
        suspects = named or (list(parts.values()) if _is_about_content(error) else [])
        damaged = [part.file for part in suspects if not _is_whole(run, part)]
    if damaged:
        return lost_rows(run, committed, damaged)
    return translate(error, "read", run.storage.full_url(named[0].file) if named else run.url)


def _is_about_content(error: Exception) -> bool:
    """Whether it says that bytes cannot be decoded; the system's own errors have a number."""
    return isinstance(error, pa.ArrowException) or (isinstance(error, OSError) and error.errno is None)


def _is_whole(run: RunDirectory, part: PartFile) -> bool:
    """Whether every page of a file can be read."""
    with run.storage.open_input(part.file) as stream:
        try:
            return bool(pq.read_table(stream).num_rows >= part.rows)
        except (pa.ArrowException, OSError):
            return False
