"""Keeping the figures of a run: ``summary.json``, and the run in MLflow."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from smoothcert.cli.options import typed_url
from smoothcert.cli.terminal import Terminal
from smoothcert.errors import TrackingError

if TYPE_CHECKING:
    from smoothcert.job import Job
    from smoothcert.runtime.driver import Driver, PhaseReport
    from smoothcert.sql import Query
    from smoothcert.store import RunDirectory
    from smoothcert.summary.summary import Summary


def write_summary(driver: Driver) -> Summary:
    """Write the figures of the run as they are now, and return them."""
    from smoothcert.summary.summary import keep_summary

    return keep_summary(driver.run)


def track(
    driver: Driver, summary: Summary, report: PhaseReport, terminal: Terminal, *, last: bool = False
) -> None:
    """Log the run to MLflow where the job wants it, unless it was stopped; says so where the server is away.

    Args:
        driver: of the run.
        summary: its figures.
        report: of the phase that ended.
        terminal: where to say so.
        last: whether no phase follows, so that the page is due.
    """
    from smoothcert.tracking import track_run

    if not driver.job.tracking.enabled or report.stopped:
        return
    documents = pages([driver.run], driver.job, terminal) if last and not report.missing else {}
    try:
        tracked = track_run(driver.run.url, summary, driver.job, documents=documents)
    except TrackingError as exc:
        terminal.say(("not tracked: ", "yellow"), str(exc))
        terminal.say(f"  to log it later: smoothcert track {typed_url(driver.run.url)}")
    else:
        terminal.say(f"MLflow: {tracked.how_to_look}")


def pages(
    runs: Sequence[RunDirectory],
    job: Job,
    terminal: Terminal,
    names: Sequence[str] | None = None,
    query: Query | None = None,
) -> dict[str, str]:
    """The report of some runs as an artifact, unless the job turns it off. One that fails is said, and fails no run.

    Args:
        runs: the runs.
        job: whose section ``tracking`` counts.
        terminal: where to say why there is none.
        names: what the page calls them.
        query: an open query with all of them, where there is one.
    """
    from smoothcert.report import make_report

    if not job.tracking.report:
        return {}
    try:
        return {"report.html": make_report(runs, names=names, query=query)}
    except Exception as exc:  # whatever it is: the results are complete without a page
        logging.getLogger(__name__).debug("the report failed", exc_info=True)
        terminal.say(("no report: ", "yellow"), f"{type(exc).__name__}: {exc}")
        return {}
