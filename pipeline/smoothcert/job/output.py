"""The sections ``output`` and ``tracking`` of a job: where results go."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from smoothcert.job.section import Section


class OutputSection(Section):
    """Where results go, and how many bad pairs are acceptable."""

    runs: str = "runs"
    """Directory (any fsspec URL) that holds run directories."""
    run: str | None = None
    """Name of the run directory; default is the job's name and the head of its fingerprint."""
    quarantine_budget: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of quarantined pairs above which the exit code says so."""


class TrackingSection(Section):
    """MLflow."""

    enabled: bool = True
    uri: str | None = None
    """Tracking server; without it MLFLOW_TRACKING_URI, else an SQLite store beside the runs."""
    experiment: str = "smoothcert"
