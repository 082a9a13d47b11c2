"""Runs for notebooks and programs: opened as relations and tables, made from a job, compared."""

from __future__ import annotations

import html
import os
from types import TracebackType
from typing import TYPE_CHECKING

from smoothcert.errors import ExecutorError, TrackingError
from smoothcert.job import Job
from smoothcert.sql import Query
from smoothcert.store import RunDirectory
from smoothcert.summary.comparison import PairedComparison, compare_runs
from smoothcert.summary.summary import Summary, aggregate, keep_summary

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa

    from smoothcert.encoders import Encoder

_CERTIFICATES = "SELECT * FROM certificates"


class Run:
    """A run directory, as it was when it was opened.

    Args:
        url: a path or fsspec URL of a run directory.

    Attributes:
        job: the resolved job.
        run_id: the run.
        url: its directory.

    Raises:
        RunDirectoryError: there is no run, or it is damaged.
        StoreError: it cannot be read.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self._directory = RunDirectory.open(os.fspath(url))
        self._query = Query([self._directory])
        self.job: Job = self._directory.info.job
        self.run_id: str = self._directory.run_id
        self.url: str = self._directory.url

    def sql(self, text: str = _CERTIFICATES) -> duckdb.DuckDBPyRelation:
        """The answer to one read-only statement, as a DuckDB relation to go on with, in DuckDB's default connection.

        Views and functions are those of ``smoothcert query``; the answer itself is computed here and now.

        Raises:
            QueryError: the SQL is wrong, or would do more than read.
            StoreError: a committed file is lost or cannot be read.
        """
        import duckdb

        return duckdb.from_arrow(self._query.sql(text))

    def to_arrow(self, text: str = _CERTIFICATES) -> pa.Table:
        """The same as an Arrow table."""
        return self._query.sql(text)

    def to_pandas(self, text: str = _CERTIFICATES) -> pd.DataFrame:
        """The same as a data frame."""
        return self._query.sql(text).to_pandas()

    def summary(self) -> Summary:
        """The figures of the run."""
        return aggregate(self._query, self._directory.info)

    def close(self) -> None:
        """Release the connection and what it spilled."""
        self._query.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        summary = self.summary()
        header, rows = summary.table()
        return "\n".join([_head(summary), "  ".join(header), *("  ".join(row) for row in rows)])

    def _repr_html_(self) -> str:
        summary = self.summary()
        header, rows = summary.table()
        lines = [_cells("th", header), *(_cells("td", row) for row in rows)]
        return f"<table><caption>{html.escape(_head(summary))}</caption>{''.join(lines)}</table>"


def open_run(url: str | os.PathLike[str]) -> Run:
    """Open a run directory, wherever it is.

    Raises:
        RunDirectoryError: there is no run, or it is damaged.
        StoreError: it cannot be read.
    """
    return Run(url)


def run(job: Job, encoder: Encoder | None = None) -> Run:
    """Run a job to its end, or what is left of it, as ``smoothcert certify`` does, and open the run.

    Args:
        job: built in code (``smoothcert.Job``) or read (``smoothcert.load_job``).
        encoder: used instead of loading the one that the job names; with the local executor only.

    Raises:
        JobError, EncoderError, SourceError: something is wrong with the job; nothing was begun.
        ExecutorError: pairs are left without a row; what is committed stays, and the same call goes on from there.
    """
    from smoothcert.runtime.driver import Driver
    from smoothcert.runtime.executor import Monitor
    from smoothcert.runtime.ray_stay import keep_cluster

    driver = Driver(job, encoder)
    driver.check()
    with keep_cluster():
        for phase in driver.phases:
            report = driver.work(phase.name, Monitor(lambda result: None))
            if report.missing:
                first = next(iter(report.failed.values()), "they were not done")
                raise ExecutorError(
                    f"{report.missing:,} pairs of the {phase.name} have no row: {first}",
                    remedy="mend that and call run again: it goes on from what is committed",
                )
    summary = keep_summary(driver.run)
    if job.tracking.enabled:
        _track(driver.run.url, summary, driver.job)
    return Run(driver.run.url)


def compare(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> PairedComparison:
    """Compare two runs of the same data pair by pair, as ``smoothcert compare`` does.

    Raises:
        QueryError: they are one run, or have no pair in common.
        RunDirectoryError, StoreError: one cannot be read.
    """
    return compare_runs(RunDirectory.open(os.fspath(first)), RunDirectory.open(os.fspath(second)))


def _track(url: str, summary: Summary, job: Job) -> None:
    import logging

    from smoothcert.tracking import track_run

    try:
        track_run(url, summary, job)
    except TrackingError as exc:
        logging.getLogger(__name__).warning("not tracked (smoothcert track %s does it later): %s", url, exc)


def _head(summary: Summary) -> str:
    state = "finished" if summary.finished else "unfinished"
    return (
        f"{summary.run_id}: {summary.ok:,} pairs certified, {summary.quarantined.count:,} quarantined, sigma "
        f"{summary.sigma:g}, alpha {summary.alpha:g}, {state}"
    )


def _cells(tag: str, cells: tuple[str, ...]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
