"""The section ``executor`` of a job: where the work runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from smoothcert.job.section import PositiveInt, Section


class ExecutorSection(Section):
    """Where the work runs."""

    kind: Literal["local", "ray"] = "local"
    address: str | None = None
    """Ray cluster address; without it RAY_ADDRESS is used, else a cluster is started on this machine."""
    workers: PositiveInt | None = None
    """Ray actors; default one per GPU of the cluster, or one per cpus_per_worker CPUs where it has none, and more as
    nodes join. With an autoscaler, which sees only what is asked for, name the number."""
    cpus_per_worker: Annotated[float, Field(ge=0)] = 1.0
    gpus_per_worker: Annotated[float, Field(ge=0)] | None = None
    """Default 1 where encoder.device is cuda, or auto and the cluster has a GPU when the run begins; else 0."""
    units_in_flight: PositiveInt = 2
    """Units that one worker holds, so that the tail of one overlaps the head of the next."""
    decode_threads: PositiveInt = 1
    lease_s: Annotated[float, Field(gt=0)] = 300.0
    """A worker that holds units but makes no draw for this long counts as hung and is replaced."""
    placement_s: Annotated[float, Field(gt=0)] = 3600.0
    """How long to wait while the cluster has no room for any worker (an autoscaler may add nodes)."""
    grace_s: Annotated[float, Field(ge=0)] = 30.0
    """How long a stop (SIGTERM, SIGINT) waits for units in progress before it gives them back."""
    poison_budget: PositiveInt = 2
    """Workers that one pair may crash before it is quarantined."""
    preemption_budget: Annotated[int, Field(ge=0)] = 1000
    """Workers that may be lost to the cluster (spot nodes) before the run gives up."""
    price_per_worker_hour: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """What a worker costs an hour, in any currency; smoothcert plan then says what the job would cost, and the report
    what it did."""
    pairs_per_unit: PositiveInt | None = None
    """Default: sized so that a unit takes a few minutes."""
