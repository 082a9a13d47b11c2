"""Writing a finished unit, and what the driver hears of it."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from smoothcert.datasets import UnitSpec
from smoothcert.store import Commit, RunDirectory, new_attempt
from smoothcert.store.retry_unit import superseded_rows
from smoothcert.work.task import Task


@dataclass(frozen=True, slots=True)
class UnitResult:
    """A unit whose rows are in the store.

    Attributes:
        unit_id: the unit.
        commit: what makes the rows count.
        done: whether the unit is committed, by this attempt or another one; False while the driver, as the
            single committer, still has to do it.
    """

    unit_id: str
    commit: Commit
    done: bool


def worker_name() -> str:
    """Who works here, where nobody gave it another name: host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


class UnitWriter:
    """Writes the rows of units into one run directory, so that they appear exactly once.

    Args:
        run: the run directory.
        worker: who writes them; by default this process.
    """

    def __init__(self, run: RunDirectory, worker: str = "") -> None:
        self._run = run
        self._worker = worker or worker_name()

    def write(
        self,
        task: Task,
        unit: UnitSpec,
        rows: Sequence[Any],
        draws: int,
        seconds: float,
        *,
        attempt: str | None = None,
    ) -> UnitResult:
        """Write and verify the part, then commit it where this process may.

        Args:
            task: what the unit is of.
            unit: the unit.
            rows: all rows of its pairs.
            draws: noisy forward passes that they took.
            seconds: how long they took.
            attempt: its name; a new one where none is given.

        Raises:
            StoreError: writing failed; nothing of this attempt counts.
        """
        attempt = attempt or new_attempt()
        part = self._run.write_rows(task.table, unit.unit_id, attempt, rows)
        quarantined = sum(row.status != "ok" for row in rows)
        commit = Commit(
            unit_id=unit.unit_id,
            attempt=attempt,
            parts=(part,),
            ok=len(rows) - quarantined,
            quarantined=quarantined,
            draws=draws,
            seconds=seconds,
            worker=self._worker,
            supersedes=superseded_rows(unit),
        )
        if not self._run.commits.may_commit:
            return UnitResult(unit.unit_id, commit, done=False)
        self._run.commits.commit(commit)  # False: another attempt was first, and its rows count
        return UnitResult(unit.unit_id, commit, done=True)
