"""Writing a finished unit, and what the driver hears of it."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from smoothcert.engine import CertificateRow
from smoothcert.store import Commit, RunDirectory, new_attempt


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
    """Who works here: host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


class UnitWriter:
    """Writes the rows of units into one run directory, so that they appear exactly once.

    Args:
        run: the run directory.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._worker = worker_name()

    def write(
        self,
        unit_id: str,
        rows: Sequence[CertificateRow],
        seconds: float,
        supersedes: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    ) -> UnitResult:
        """Write and verify the part, then commit it where this process may.

        Args:
            unit_id: the unit.
            rows: one per pair.
            seconds: how long they took.
            supersedes: rows of earlier units that these replace.

        Raises:
            StoreError: writing failed; nothing of this attempt counts.
        """
        attempt = new_attempt()
        part = self._run.write_certificates(unit_id, attempt, rows)
        quarantined = sum(row.status != "ok" for row in rows)
        commit = Commit(
            unit_id=unit_id,
            attempt=attempt,
            parts=(part,),
            ok=len(rows) - quarantined,
            quarantined=quarantined,
            draws=sum(row.draws + row.pilot_draws for row in rows),
            seconds=seconds,
            worker=self._worker,
            supersedes=supersedes,
        )
        if not self._run.commits.may_commit:
            return UnitResult(unit_id, commit, done=False)
        self._run.commits.commit(commit)  # False: another attempt was first, and its rows count
        return UnitResult(unit_id, commit, done=True)
