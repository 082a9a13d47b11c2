"""A new embedded MLflow database, made whole or not at all, and quickly.

MLflow builds its tables by running every migration of its history: hundreds of statements, each waiting for
the disk. Two drivers that start together, or one that is killed meanwhile, must not leave a half-made file.
So it is made under another name, without waiting for the disk, then flushed once and linked into place: first
come, first served.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smoothcert.errors import TrackingError
from smoothcert.tracking.destination import sqlite_uri


def ensure_database(database: Path, artifacts: str) -> None:
    """Make the database, unless it is there. Call inside ``quiet_mlflow``.

    Args:
        database: the SQLite file.
        artifacts: artifact location of MLflow's own default experiment.

    Raises:
        TrackingError: the directory cannot be written to.
    """
    if database.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    made = database.with_name(f".{database.name}.{uuid.uuid4().hex}")
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        made.touch()
        with _unsynchronised(made):
            SqlAlchemyStore(sqlite_uri(made), artifacts).engine.dispose()
        _flush(made)
        _link(made, database)
    except OSError as exc:
        raise TrackingError(
            f"cannot make MLflow's database '{database}': {exc.strerror or exc}",
            remedy="make the directory writable, or set a server in tracking.uri",
        ) from exc
    finally:
        for leftover in (made, made.with_name(f"{made.name}-journal")):
            leftover.unlink(missing_ok=True)


@contextmanager
def _unsynchronised(file: Path) -> Iterator[None]:
    """New connections to this file do not wait for the disk: a crash costs a file that nobody has seen."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def connected(connection: Any, _record: Any) -> None:
        if Path(connection.execute("PRAGMA database_list").fetchone()[2]).name == file.name:
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", connected)
    try:
        yield
    finally:
        event.remove(Engine, "connect", connected)


def _flush(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _link(made: Path, database: Path) -> None:
    try:
        os.link(made, database)
    except FileExistsError:
        pass  # another driver was first
    except OSError:
        # no hard links on this file system; here another driver can be overtaken for a moment
        if not database.exists():
            os.replace(made, database)
