"""Where a run is tracked: the job's URI, else MLFLOW_TRACKING_URI, else a database beside the runs."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from smoothcert.errors import TrackingError
from smoothcert.job import TrackingSection
from smoothcert.redaction import without_secrets
from smoothcert.storage import Storage

_MORE_IN_A_URI = frozenset("?%#:")
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
        return f"{self.shown.rstrip('/')}{_place(experiment_id, run_id)}" if self.remote else self.shown

    def how_to_look(self, experiment_id: str, run_id: str) -> str:
        """What to open, or to run first, in order to see that page."""
        if self.remote:
            return f"open {self.page(experiment_id, run_id)}"
        command = f"mlflow ui --backend-store-uri {shlex.quote(self.shown)}"
        return f"{command}, then open http://127.0.0.1:5000{_place(experiment_id, run_id)}"


def _place(experiment_id: str, run_id: str) -> str:
    """Where MLflow's pages have a run.

    MLflow 3 shows every experiment as one of traces, where runs have no place, until told that it is one of training.
    """
    return f"/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def destination(run_url: str, tracking: TrackingSection) -> Destination:
    """The store for a run.

    Args:
        run_url: its directory.
        tracking: the job's section.

    Raises:
        TrackingError: nothing names a store, and none can be beside the run: it is not on this machine, or its
            path cannot be written as a URI.
    """
    named = tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if named:
        return Destination(named)
    storage = Storage(run_url)
    if not storage.local:
        raise TrackingError(
            f"run '{without_secrets(run_url)}' is on an object store, which cannot hold MLflow's database",
            remedy="set a server in tracking.uri or MLFLOW_TRACKING_URI, or set tracking.enabled: false",
        )
    runs = Path(storage.root).parent
    database = runs / DATABASE
    return Destination(sqlite_uri(database), (runs / ARTIFACTS).as_uri(), database)


def sqlite_uri(database: Path) -> str:
    """The URI by which MLflow opens this file, and no other: signs such as ``?`` and ``%`` mean more in a URI.

    Raises:
        TrackingError: the installed SQLAlchemy has no way to name this file.
    """
    from sqlalchemy.engine import URL, make_url

    if not set(str(database)) & _MORE_IN_A_URI:
        return f"sqlite:///{database}"
    # with the driver's name: for "sqlite:///" MLflow makes a directory of what is still encoded
    uri = URL.create("sqlite+pysqlite", database=str(database)).render_as_string()
    understood = make_url(uri)
    if understood.database != str(database) or understood.query:
        raise TrackingError(
            f"MLflow's database cannot be at '{database}': SQLAlchemy reads '{uri}' as '{understood.database}'",
            remedy="upgrade SQLAlchemy to 2.1 or newer, choose a directory without '?' and '%' in its path "
            "(output.runs), or name a server in tracking.uri",
        )
    return uri
