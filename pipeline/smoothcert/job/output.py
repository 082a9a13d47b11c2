"""The sections ``output`` and ``tracking`` of a job: where results go."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from smoothcert.job.section import STORED, Section

_NO_NAMES = ("", ".", "..")


class OutputSection(Section):
    """Where results go, and how many bad pairs are acceptable."""

    runs: str = "runs"
    """Directory (any fsspec URL) that holds run directories."""
    run: str | None = None
    """Name of the run directory, one folder below runs; default is the job's name with sigma, encoder and defence, and
    the head of its fingerprint."""
    metrics: str | None = None
    """Prometheus text file that is kept up to date during a run, a path or URL, e.g. in the folder of the node
    exporter's textfile collector; default metrics.prom in the run directory."""
    quarantine_budget: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of pairs that may be quarantined; above it the exit code is 6."""

    @field_validator("run")
    @classmethod
    def _one_folder(cls, run: str | None, info: ValidationInfo) -> str | None:
        if run is None or info.context == STORED:
            return run
        above, _, name = run.rstrip("/").rpartition("/")
        if "/" in run and name not in _NO_NAMES:
            raise ValueError(
                f"{run!r} has a slash, but this is a name below output.runs; write output.runs: "
                f"{json.dumps(above or ('/' if run.startswith('/') else 'runs'))} and output.run: {json.dumps(name)}"
            )
        if "/" in run or run in _NO_NAMES:
            raise ValueError(f"{run!r} is not a valid folder name; give another one, or leave it out")
        return run


class TrackingSection(Section):
    """MLflow."""

    enabled: bool = True
    uri: str | None = None
    """Tracking server; without it MLFLOW_TRACKING_URI, else an SQLite store beside the runs."""
    experiment: str = "smoothcert"
    report: bool = True
    """Whether the page of smoothcert report is logged too, at the end of the last kind of work and of a study."""
