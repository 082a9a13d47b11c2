"""The job that a run directory keeps, as commands on that run use it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from smoothcert.errors import JobError
from smoothcert.job import Job, parse_job

if TYPE_CHECKING:
    from smoothcert.store import RunDirectory


def job_of_run(run: RunDirectory, changes: list[str]) -> Job:
    """The stored job at the place where the run is now, with overrides that leave its numbers alone.

    Raises:
        JobError: an override would change a number.
    """
    stored = run.info.job
    runs, _, name = run.url.rstrip("/").rpartition("/")
    # as JSON: a name may read like a number or a date
    place = [f"output.runs={json.dumps(runs or '/')}", f"output.run={json.dumps(name)}"]
    job = parse_job(stored.to_yaml(), [*changes, *place], origin="the run's job")
    if job.science() != stored.science():
        raise JobError(
            "--set changes a field that the run's results depend on",
            remedy="leave that change out, or start a new run with 'smoothcert certify'",
        )
    return job
