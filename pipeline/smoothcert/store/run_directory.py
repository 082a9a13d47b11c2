"""A run directory: one job fingerprint, its plan, its committed rows.

    <run>/run.json                       what it is about; made exclusively and last: from then on it is a run
    <run>/job.yaml                       the resolved job, for people
    <run>/plan/<token>.parquet           the units; run.json names the file that counts
    <run>/certificates/<unit>-<attempt>.parquet   parts; only those that a commit names count
    <run>/commits/<unit>.json            see commits.py
    <run>/manifests/<number>.parquet     see commits.py
    <run>/workers/<name>.jsonl           see events.py
    <run>/notes.json                     what to know of the encoder; where there is anything
    <run>/metrics.prom                   numbers for Prometheus, while a driver works; telemetry, not results
    <run>/driver.json                    see lease.py; only where the store cannot create files exclusively

Any number of drivers may create or open it at once: one of them makes run.json, the others use it. Where the
store cannot create files exclusively, one driver at a time works on it, and the others are refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

from smoothcert.datasets import UnitSpec
from smoothcert.errors import RunDirectoryError
from smoothcert.storage.filesystem import Storage
from smoothcert.store.commits import COMMITS, MANIFESTS, CommitLog
from smoothcert.store.lease import LEASE_FILE, DriverLease
from smoothcert.store.manifest import Committed
from smoothcert.store.parts import PartFile, write_part
from smoothcert.store.plan import read_plan, write_plan
from smoothcert.store.run_info import RunIdentity, RunInfo
from smoothcert.store.tables.columns import TableSchema
from smoothcert.store.tables.registry import TABLES
from smoothcert.store.tables.rows import rows_to_table
from smoothcert.store.units import CERTIFICATION, unit_under

RUN_FILE = "run.json"
JOB_FILE = "job.yaml"
NOTES_FILE = "notes.json"
WORKERS = "workers"
"""Where workers and drivers say how they are."""


class RunDirectory:
    """An open run directory. Make one by ``create_or_open`` (drivers) or ``open`` (workers, readers).

    Attributes:
        storage: its files.
        info: what ``run.json`` says.
        created: whether this call created the directory.
    """

    def __init__(
        self, storage: Storage, info: RunInfo, *, exclusive: bool | None = None, created: bool = False
    ) -> None:
        self.storage = storage
        self.info = info
        self.created = created
        self._exclusive = exclusive

    @classmethod
    def create_or_open(
        cls,
        url: str | os.PathLike[str],
        identity: RunIdentity,
        units: Iterable[UnitSpec],
        differing: Callable[[RunDirectory], Sequence[str]] | None = None,
    ) -> RunDirectory:
        """Open the run of this identity, creating the directory where there is none.

        Args:
            url: local path or fsspec URL of the directory.
            identity: what determines the run's numbers.
            units: the plan; used up only when a directory is created.
            differing: says of a run whose data has another digest what differs, one line each.

        Raises:
            RunDirectoryError: the directory holds a run of another identity (the text says what differs), or
                other files, or is being created by another driver on a store that cannot create exclusively.
            StoreError: reading or writing failed.
        """
        storage = Storage(url)
        run = cls._open(storage)
        if run is None:
            run = cls._create(storage, identity, units)
        differences = run.info.differences(identity)
        if differences:
            if differing is not None and run.info.data_digest != identity.data_digest:
                differences += differing(run)
            remedy = "choose another directory (output.run), or undo these changes in the job"
            if run.info.is_elsewhere(identity):
                remedy += f"; if this is the same data in another place: data.moved_from: {run.info.place}"
            raise RunDirectoryError(
                f"'{storage.url}' belongs to a different job; the differences are:\n  "
                + "\n  ".join(differences),
                remedy=remedy,
            )
        if not storage.exists(JOB_FILE):
            storage.replace(JOB_FILE, run.info.job.to_yaml().encode())
        return run

    @classmethod
    def open(cls, url: str | os.PathLike[str], *, exclusive: bool | None = None) -> RunDirectory:
        """Open an existing run directory.

        Args:
            url: local path or fsspec URL of the directory.
            exclusive: whether its store can create a file exclusively, where the driver has found out; all that
                work on one run must agree.

        Raises:
            RunDirectoryError: there is none, or it is damaged.
            StoreError: reading failed.
        """
        storage = Storage(url)
        run = cls._open(storage, exclusive)
        if run is None:
            raise RunDirectoryError(
                f"'{storage.url}' is not a run directory: it has no {RUN_FILE}",
                remedy="name the directory that 'smoothcert certify' printed",
            )
        return run

    @classmethod
    def _open(cls, storage: Storage, exclusive: bool | None = None) -> RunDirectory | None:
        text = storage.read_if_present(RUN_FILE)
        if text is None:
            return None
        info = RunInfo.from_json(text, storage.full_url(RUN_FILE))
        return cls(storage, info, exclusive=exclusive)

    @classmethod
    def _create(cls, storage: Storage, identity: RunIdentity, units: Iterable[UnitSpec]) -> RunDirectory:
        strange = [
            name for name in storage.names("") if name not in _OURS and not name.startswith((".", "probe-"))
        ]
        if strange:
            raise RunDirectoryError(
                f"'{storage.url}' is not empty and not a run directory: it holds '{strange[0]}'",
                remedy="choose another directory (output.run)",
            )
        storage.make_directory()
        # each driver writes its own plan; run.json, made exclusively, names the one that counts
        plan = f"plan/{uuid.uuid4().hex}.parquet"
        count, pairs = write_plan(storage, plan, units)
        info = RunInfo.new(identity, plan=plan, units=count, pairs=pairs)
        if storage.supports_exclusive_create():
            created = storage.create(RUN_FILE, info.to_json())
        else:
            with DriverLease(storage):
                created = not storage.exists(RUN_FILE)
                if created:
                    storage.replace(RUN_FILE, info.to_json())
        if not created:
            storage.remove(plan)
        run = cls._open(storage)
        assert run is not None, "run.json was just made"
        run.created = created
        return run

    @property
    def url(self) -> str:
        """Where it is."""
        return self.storage.url

    @property
    def run_id(self) -> str:
        """Unique name of the run; in every row."""
        return self.info.run_id

    @cached_property
    def commits(self) -> CommitLog:
        """What is committed. Writing needs no probe until the first commit, reading never does."""
        return CommitLog(self.storage, exclusive=self._exclusive)

    @property
    def exclusive(self) -> bool:
        """Whether workers may commit; if not, they hand commits to the driver. Probed once."""
        return self.commits.exclusive

    @contextlib.contextmanager
    def committing(self) -> Iterator[None]:
        """While this process commits as the driver, or compacts: on a store without exclusive creation no other does.

        Nothing happens where files are created exclusively, or inside of another ``committing``.

        Raises:
            RunDirectoryError: another driver works on the run.
            StoreError: reading or writing failed.
        """
        if self.exclusive or self.commits.lease is not None:
            yield
            return
        with DriverLease(self.storage) as lease:
            self.commits.lease = lease
            try:
                yield
            finally:
                self.commits.lease = None

    def plan(self) -> list[UnitSpec]:
        """The units as first planned."""
        return read_plan(self.storage, self.info.plan, self.info.units)

    def pending(self, committed: Committed | None = None, task_id: str = CERTIFICATION) -> Iterator[UnitSpec]:
        """Units of a task that still need work, in the plan's order; split units appear as the smaller ones.

        Args:
            committed: what ``commits.load()`` returned, where it is at hand.
            task_id: the task.
        """
        state = self.commits.load() if committed is None else committed
        waiting: list[UnitSpec] = []
        for planned in self.plan():
            waiting.append(unit_under(planned, task_id))
            while waiting:
                unit = waiting.pop()
                if unit.unit_id not in state.unit_ids:
                    yield unit
                else:
                    waiting.extend(reversed(state.split_units.get(unit.unit_id, ())))

    def write_rows(self, table: TableSchema, unit_id: str, attempt: str, rows: Sequence[Any]) -> PartFile:
        """Write and verify an attempt's part of a table.

        Args:
            table: what the rows are of.
            unit_id: the unit.
            attempt: from ``new_attempt``.
            rows: mappings or dataclasses with every column but run_id and attempt.

        Raises:
            StoreError: the rows break the schema, or writing failed.
        """
        arrow = rows_to_table(rows, table, run_id=self.run_id, attempt=attempt)
        return write_part(self.storage, table, unit_id, attempt, arrow)

    def write_document(self, name: str, data: bytes) -> str:
        """Write a small file such as ``summary.json``, over an older one; returns its URL."""
        self.storage.replace(name, data)
        return self.storage.full_url(name)

    def read_document(self, name: str) -> bytes | None:
        """What ``write_document`` wrote, or ``None``."""
        return self.storage.read_if_present(name)

    def note(self, notes: Sequence[str]) -> None:
        """Keep what whoever reads the figures should know of the encoder, in place of what was kept before."""
        text = json.dumps(list(notes), indent=2, ensure_ascii=False).encode() + b"\n"
        if (notes or self.notes()) and self.read_document(NOTES_FILE) != text:
            self.write_document(NOTES_FILE, text)

    def notes(self) -> tuple[str, ...]:
        """What ``note`` kept."""
        text = self.read_document(NOTES_FILE)
        return () if text is None else tuple(map(str, json.loads(text)))


_OURS = frozenset({RUN_FILE, JOB_FILE, LEASE_FILE, "plan", COMMITS, MANIFESTS, "attacks", *TABLES})
