"""Where a run is tracked: the job's URI, else MLFLOW_TRACKING_URI, else a database beside the runs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from smoothcert.errors import TrackingError
from smoothcert.job import TrackingSection
from smoothcert.redaction import without_secrets
from smoothcert.storage import Storage

DATABASE = "mlflow.db"
ARTIFACTS = "mlflow-artifacts"


@dataclass(frozen=True, slots=True)
class Destination:
    """An MLflow store.

    Attributes:
        uri: its tracking URI, perhaps with credentials: never printed, see ``shown``.
        artifacts: artifact location of experiments made here; None leaves it to the server.
        database: the file behind an embedded store; None for every other one.
    """

    uri: str
    artifacts: str | None = None
    database: Path | None = None

    @property
    def shown(self) -> str:
        """The URI without credentials, for people."""
        return without_secrets(self.uri)

    @property
    def remote(self) -> bool:
        """Whether a server answers, rather than a database that is opened here."""
        return self.uri.startswith(("http://", "https://"))

    def page(self, experiment_id: str, run_id: str) -> str:
        """Address of a run's page; of the store where no server shows pages."""
        if not self.remote:
            return self.shown
        return f"{self.shown.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"

    @property
    def how_to_look(self) -> str:
        """What to open or to run in order to see it."""
        return f"open {self.shown}" if self.remote else f"mlflow ui --backend-store-uri {self.shown}"


def destination(run_url: str, tracking: TrackingSection) -> Destination:
    """The store for a run.

    Args:
        run_url: its directory.
        tracking: the job's section.

    Raises:
        TrackingError: nothing names a store, and the run is not on this machine, so that none can be beside
            it.
    """
    named = tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if named:
        return Destination(named)
    storage = Storage(run_url)
    if not storage.local:
        raise TrackingError(
            f"run '{without_secrets(run_url)}' is on an object store, where MLflow's database cannot be",
            remedy="name a server in tracking.uri or MLFLOW_TRACKING_URI, or set tracking.enabled: false",
        )
    runs = Path(storage.root).parent
    database = runs / DATABASE
    return Destination(f"sqlite:///{database}", (runs / ARTIFACTS).as_uri(), database)
