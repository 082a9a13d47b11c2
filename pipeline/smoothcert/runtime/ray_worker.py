"""The actor on Ray: a worker session, the calls that the driver makes on it, and its numbers on Ray's endpoints."""

from __future__ import annotations

import os
from collections.abc import Callable

import ray

from smoothcert.datasets import UnitSpec
from smoothcert.errors import EncoderError, JobError, RunDirectoryError
from smoothcert.runtime.arrow_alone import leave_pandas_out
from smoothcert.runtime.progress import Progress
from smoothcert.runtime.ray_metrics import RayMetrics
from smoothcert.runtime.results import UnitResult, worker_name
from smoothcert.runtime.session import Session


class SessionBrokenError(Exception):
    """The engine of a worker is gone for good; units that fail because of it are not at fault."""


class RayWorker:
    """A worker's session in a process of its own.

    Args:
        open_session: makes the session; must be picklable.
        run: names the run in the metrics.
    """

    def __init__(self, open_session: Callable[[], Session], run: str) -> None:
        leave_pandas_out()
        self._open_session = open_session
        self._session: Session | None = None
        self._metrics = RayMetrics({"run": run, "worker": worker_name()})

    def __repr__(self) -> str:
        """How Ray's dashboard and logs call it: as everything else here does."""
        return worker_name()

    def hello(self) -> tuple[str, tuple[str, int]]:
        """Its name, and node id and process id: this worker has its resources and runs."""
        return worker_name(), (ray.get_runtime_context().get_node_id(), os.getpid())

    def start(self) -> str:
        """Load the encoder and be ready; returns what its noise comes from. Errors reach the driver as they are."""
        self._session = self._open_session()
        return self._session.noise

    def run(self, unit: UnitSpec) -> UnitResult:
        """Do and write a unit; blocks until it is done."""
        assert self._session is not None
        try:
            return self._session.submit(unit).result()
        except (EncoderError, JobError, RunDirectoryError):
            raise
        except Exception as exc:
            if self._session.broken is None:
                raise
            raise SessionBrokenError(f"{type(exc).__name__}: {exc}") from None

    def stop(self) -> None:
        """Finish and say so."""
        if self._session is not None:
            self._session.abandon()

    def progress(self) -> Progress:
        """Counters; also the sign of life, and the moment at which metrics are shown."""
        assert self._session is not None
        progress = self._session.progress()
        self._metrics.show(progress)
        return progress
