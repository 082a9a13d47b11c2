"""``smoothcert track``: log a run to MLflow, now or again."""

from __future__ import annotations

from typing import Annotated

import typer

from smoothcert.cli.keeping import pages
from smoothcert.cli.options import RunDir
from smoothcert.cli.terminal import Terminal


def track(
    run_url: RunDir,
    uri: Annotated[
        str | None, typer.Option(help="Tracking server; by default the one named in the job.")
    ] = None,
) -> None:
    """Log a run to MLflow. A run that was logged before is updated."""
    from smoothcert.store import RunDirectory
    from smoothcert.summary.summary import summarise
    from smoothcert.tracking import track_run

    job = RunDirectory.open(run_url).info.job
    if uri is not None:
        job = job.model_copy(update={"tracking": job.tracking.model_copy(update={"uri": uri})})
    run = RunDirectory.open(run_url)
    documents = pages([run], job, Terminal(stderr=True))
    tracked = track_run(run_url, summarise(run_url), job, documents=documents)
    Terminal().say(f"MLflow: {tracked.how_to_look}")
