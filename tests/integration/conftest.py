"""A new database of MLflow, made once for all tests that track their runs into one."""

import os
from pathlib import Path

import pytest
from filelock import FileLock

from smoothcert.tracking.database import ensure_database
from smoothcert.tracking.quiet import quiet_mlflow


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs, to copy: it takes seconds to make one. All processes of a test run share it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    database = shared / "migrated" / "mlflow.db"
    with FileLock(shared / "migrated.lock"):
        if not database.exists():
            with quiet_mlflow():
                ensure_database(database, (database.parent / "artifacts").as_uri())
    return database
