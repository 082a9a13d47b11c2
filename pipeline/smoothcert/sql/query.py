"""SQL over committed rows: DuckDB, read-only, without access to anything else.

DuckDB sees the committed files as one pyarrow dataset per run, made from the commit log and never from a
glob. That works alike on every file system (pyarrow reads local disks itself, other stores through fsspec),
pushes filters and projections down into the Parquet reader, and leaves DuckDB's own access to files, network
and extensions switched off and locked while a user's SQL runs.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from smoothcert.errors import QueryError
from smoothcert.sql.definitions import Definitions
from smoothcert.sql.failed_reading import explain_failed_reading
from smoothcert.sql.functions import define_functions
from smoothcert.sql.query_errors import explain, read_only
from smoothcert.sql.run_tables import OpenedRun
from smoothcert.sql.views import define_views
from smoothcert.store.manifest import Committed
from smoothcert.store.run_directory import RunDirectory
from smoothcert.store.runs import open_runs

_Result = TypeVar("_Result")

_LOCKDOWN = (
    "SET enable_progress_bar = false",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET python_enable_replacements = false",
    "SET allow_community_extensions = false",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)


class Query:
    """An open connection over one or more runs, as of the moment it was opened. Close it, or use ``with``.

    Views and functions are described in ``views.py`` and ``functions.py``. Each is made when a statement names it.

    Args:
        runs: open run directories.
        many: whether dozens of statements follow, as in an audit: then the rows of small tables are copied into
            DuckDB's memory, since each statement on files takes ten times as long as one on such a copy. What DuckDB
            spends on them is not reading but binding a hundred columns for each view that a statement names.

    Raises:
        QueryError: a run is given twice.
        StoreError: a run's commits cannot be read, or with ``many`` its rows.
    """

    def __init__(self, runs: Sequence[RunDirectory], *, many: bool = False) -> None:
        if not runs:
            raise QueryError("no run was given", remedy="give at least one run directory")
        opened: dict[str, OpenedRun] = {}
        for run in runs:
            if run.run_id in opened:
                raise QueryError(
                    f"run '{run.run_id}' is given twice: '{opened[run.run_id].directory.url}' and "
                    f"'{run.url}'",
                    remedy="give each run once; a copied directory is the same run",
                )
            opened[run.run_id] = OpenedRun.load(run)
        self._runs = tuple(opened.values())
        # a large sort may spill; the directory goes when the connection is closed
        self._spill = tempfile.TemporaryDirectory(prefix="smoothcert-query-")
        self._connection = duckdb.connect(":memory:", config={"temp_directory": self._spill.name})
        self._definitions = Definitions(self._connection)
        try:
            define_functions(self._definitions)
            define_views(self._definitions, self._runs, copy_small=many)
            for statement in _LOCKDOWN:
                self._connection.execute(statement)
        except BaseException:
            self.close()
            raise

    def sql(self, text: str) -> pa.Table:
        """The result of one read-only statement.

        Raises:
            QueryError: the SQL is wrong, or would do more than read; the text says which columns or views
                there are.
            StoreError: a committed file is lost, cut or damaged, or the store does not answer.
        """
        return self._ask(text, lambda statement: self._connection.sql(statement).to_arrow_table())

    def rows(self, text: str) -> list[dict[str, Any]]:
        """The few rows that a statement gives, each by the names of its columns; otherwise as ``sql``.

        DuckDB binds a statement twice for a result in Arrow, and once for this one: of wide statements over few rows
        that is half of the time. HUGEINT comes as int.
        """
        return self._ask(text, self._fetch)

    def _fetch(self, statement: duckdb.Statement) -> list[dict[str, Any]]:
        result = self._connection.execute(statement)
        names = [column[0] for column in result.description]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def _ask(self, text: str, fetch: Callable[[duckdb.Statement], _Result]) -> _Result:
        """What ``fetch`` makes of the statement, with errors that say what to do."""
        for run in self._runs:
            run.failures.clear()
        try:
            with self._explained():
                statement = read_only(self._connection, text)
                self._definitions.provide(text)
                try:
                    return fetch(statement)
                except duckdb.CatalogException:
                    # it names what we do not have, or in a way that we do not see
                    self._definitions.provide_all()
                    return fetch(statement)
        except duckdb.Error as exc:
            if isinstance(exc, (duckdb.CatalogException, duckdb.BinderException)):
                with contextlib.suppress(duckdb.Error):  # so that the remedy can say what there is
                    self._definitions.provide_all()
            raise explain(exc, text, self._connection) from exc

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """DuckDB's errors that come from reading files, as what went wrong there."""
        try:
            yield
        except duckdb.Error as exc:
            for run in self._runs:
                for failure in run.failures:
                    raise explain_failed_reading(run.directory, run.committed, failure) from exc
            raise

    def committed(self, run_id: str) -> Committed:
        """The commits of one of the runs, as of the moment at which this was opened.

        Raises:
            KeyError: it is none of them.
        """
        return {run.directory.run_id: run.committed for run in self._runs}[run_id]

    def close(self) -> None:
        """Release the connection and what it spilled."""
        self._definitions.forget()
        self._connection.close()
        self._spill.cleanup()

    def __enter__(self) -> Query:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def asking(
    runs: Sequence[RunDirectory], query: Query | None = None, *, many: bool = True
) -> AbstractContextManager[Query]:
    """A query that is open already, and stays open, or else one that is closed at the end.

    Args:
        runs: what they are about; all of them are in the open query too.
        query: the open one, where whoever calls has one.
        many: whether it is for dozens of statements, as of ``Query``.

    Raises:
        QueryError, StoreError: as ``Query``, where one is opened.
    """
    return Query(runs, many=many) if query is None else contextlib.nullcontext(query)


def open_query(run_urls: Sequence[str | os.PathLike[str]]) -> Query:
    """Open run directories for SQL.

    Args:
        run_urls: local paths or fsspec URLs of run directories, or of directories that hold some.

    Raises:
        QueryError: none is given, or one twice.
        RunDirectoryError: there is no run at one of them, or it is damaged.
        StoreError: one cannot be read.
    """
    return Query(open_runs(run_urls))
