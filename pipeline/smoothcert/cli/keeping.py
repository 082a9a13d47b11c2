"""Keeping the figures of a run: ``summary.json``, and the run in MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoothcert.cli.options import typed_url
from smoothcert.cli.terminal import Terminal
from smoothcert.errors import TrackingError

if TYPE_CHECKING:
    from smoothcert.runtime.driver import Driver, PhaseReport
    from smoothcert.summary.summary import Summary


def write_summary(driver: Driver) -> Summary:
    """Write the figures of the run as they are now, and return them."""
    from smoothcert.summary.summary import keep_summary

    return keep_summary(driver.run)


def track(driver: Driver, summary: Summary, report: PhaseReport, terminal: Terminal) -> None:
    """Log the run to MLflow where the job wants it, unless it was stopped; says so where the server is away."""
    from smoothcert.tracking import track_run

    if not driver.job.tracking.enabled or report.stopped:
        return
    try:
        tracked = track_run(driver.run.url, summary, driver.job)
    except TrackingError as exc:
        terminal.say(("not tracked: ", "yellow"), str(exc))
        terminal.say(f"  to log it later: smoothcert track {typed_url(driver.run.url)}")
    else:
        terminal.say(f"MLflow: {tracked.how_to_look}")
