"""Commits: for each unit, the one attempt that counts. First wins, and stays.

    commits/<unit>.json            made exclusively, never changed or deleted: it is also the unit's lock
    manifests/<number>.parquet     every commit up to some moment, so that readers open few files

A manifest is made exclusively too, and only adds to the one before or rewrites its file names. Readers take
the one with the highest number, and the commits that it does not have: no moment shows a unit twice or none.
A process that slept through its lease and wakes finds its unit's file taken, however many manifests were
made.

Only people delete a commit, to have a unit done again whose rows are lost: such a unit counts as open, also
where a manifest still has it.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from smoothcert.datasets import UnitSpec
from smoothcert.errors import RunDirectoryError, StoreError
from smoothcert.storage.filesystem import Storage
from smoothcert.store.commit_record import Commit
from smoothcert.store.lease import DriverLease
from smoothcert.store.manifest import MANIFEST, Committed, table_from_commits, with_tasks
from smoothcert.store.parts import PartFile, find_missing, new_attempt, require_name

log = logging.getLogger(__name__)

_NAMED = 1000
"""Units that an error names at most."""

COMMITS = "commits"
MANIFESTS = "manifests"


class CommitLog:
    """The commits of one run directory.

    Args:
        storage: the run directory.
        exclusive: whether the store can create a file exclusively; then any process may commit. ``None``: found
            out by a probe before the first write, so that readers need no right to write.
        lease: without ``exclusive``, the right to be the one process that commits, which the driver takes.
    """

    def __init__(
        self, storage: Storage, *, exclusive: bool | None = None, lease: DriverLease | None = None
    ) -> None:
        self.lease = lease
        self._storage = storage
        self._known_exclusive = exclusive
        self._lock = threading.Lock()

    @property
    def exclusive(self) -> bool:
        """Whether any process may commit, because the store creates files exclusively. Probed once.

        Raises:
            StoreError: the probe could not be written.
        """
        if self._known_exclusive is None:
            self._known_exclusive = self._storage.supports_exclusive_create(COMMITS)
        return self._known_exclusive

    @property
    def may_commit(self) -> bool:
        """Whether ``commit`` works here; if not, hand the ``Commit`` to the driver."""
        return self.exclusive or self.lease is not None

    def commit(self, commit: Commit) -> bool:
        """Make an attempt the one that counts, unless another already is.

        Returns:
            True if this attempt counts now (also when it already did); False if another one does: then this
            attempt's parts are garbage.

        Raises:
            StoreError: a part is gone, the commit could not be written, or this process may not commit: it does
                not count then. Or a part vanished while the commit was made, which takes an attempt older than
                the grace of ``smoothcert gc``: then it counts without its rows, every reader of them fails, and
                the text says how the unit is done again.
        """
        made = self._commit(commit)
        if made:
            self._look_back(commit)
        return made

    def _look_back(self, commit: Commit) -> None:
        """Raise ``StoreError`` if a part went for garbage between the look at it and the commit."""
        try:
            lost = find_missing(self._storage, commit.parts)
        except StoreError as exc:
            log.warning(
                "unit %s is committed, but its file could not be checked again: %s", commit.unit_id, exc
            )
            return
        if lost:
            file = f"{COMMITS}/{commit.unit_id}.json"
            raise StoreError(
                f"unit '{commit.unit_id}' was committed while '{self._storage.full_url(lost[0])}' was deleted: its "
                "rows are missing",
                remedy=f"delete '{self._storage.full_url(file)}' while no driver works and run the same command "
                "again: only this unit is repeated; give 'smoothcert gc' a longer --grace-s",
            )

    def _commit(self, commit: Commit) -> bool:
        file = f"{COMMITS}/{require_name('unit_id', commit.unit_id)}.json"
        data = commit.to_json()
        for part in commit.parts:
            # an attempt that slept for a day may find that its part was taken for garbage
            if self._storage.size(part.file) != part.size_bytes:
                raise StoreError(
                    f"'{self._storage.full_url(part.file)}' differs from what was written",
                    remedy="check the store; the unit will be repeated",
                )
        if self.exclusive:
            return self._storage.create(file, data)
        if self.lease is None:
            raise StoreError(
                f"unit '{commit.unit_id}' cannot be committed by a worker: '{self._storage.url}' is on a "
                f"store that cannot create a file exclusively",
                remedy="hand the commit to the driver, which is the single committer there",
            )
        with self._lock:
            self.lease.check()
            present = self._storage.read_if_present(file)
            if present is not None:
                return present == data
            self._storage.replace(file, data)
            return True

    def split(self, unit_id: str, children: Sequence[UnitSpec], *, worker: str = "") -> bool:
        """Put smaller units in the place of one that was never committed.

        Args:
            unit_id: the unit; every late attempt at it loses from now on.
            children: units that together hold exactly its pairs.
            worker: who decided it.

        Returns:
            False if the unit was committed, or split, by another in the meantime.
        """
        return self.commit(
            Commit(
                unit_id=unit_id,
                attempt=new_attempt(),
                split=tuple(children),
                worker=worker,
            )
        )

    def unit_ids(self) -> set[str]:
        """Units that are closed (committed or split): one listing, nothing opened."""
        return {
            name.removesuffix(".json")
            for name in self._storage.names(COMMITS)
            if name.endswith(".json") and not name.startswith(".")
        }

    def load(self) -> Committed:
        """Every commit, from the newest manifest and the few files it does not have.

        Raises:
            StoreError: reading failed.
            RunDirectoryError: a commit is damaged, or was deleted while others share its rows' file.
        """
        closed = self.unit_ids()
        number, table = self._newest_manifest()
        known = set(table["unit_id"].to_pylist())
        reopened = known - closed
        if reopened:
            # not those that were committed and folded since the listing: they are in a later one
            reopened -= self.unit_ids()
            reopened = {unit for unit in reopened if not self._storage.exists(f"{COMMITS}/{unit}.json")}
            self._refuse_half_a_file(table, reopened)
            table = table.filter(pc.invert(pc.is_in(table["unit_id"], pa.array(reopened, pa.string()))))
        commits = self._read(closed - known)
        if commits:
            table = pa.concat_tables([table, table_from_commits(commits)])
        return Committed(table, manifest=number, unfolded=len(commits), reopened=frozenset(reopened))

    def resume(self) -> Committed:
        """``load`` for a driver that starts; units whose commit was deleted by hand leave the manifest for good.

        Raises:
            StoreError: reading or writing failed.
            RunDirectoryError: a commit is damaged.
        """
        committed = self.load()
        while committed.reopened:
            log.warning(
                "%d units whose commit was deleted will be repeated, e.g. %s",
                len(committed.reopened),
                min(committed.reopened),
            )
            self.publish(committed.manifest, committed.table)
            committed = self.load()
        return committed

    def parts_without(self, unit_ids: set[str]) -> list[PartFile]:
        """Parts that the commits of all other units name, as they were committed."""
        return [part for commit in self._read(self.unit_ids() - unit_ids) for part in commit.parts]

    def _refuse_half_a_file(self, table: pa.Table, reopened: set[str]) -> None:
        """A merged file is read whole: of the units in it, all are done again or none."""
        rows = zip(table["unit_id"].to_pylist(), table["parts"].to_pylist(), strict=True)
        owners = [(unit, part["file"]) for unit, parts in rows for part in parts]
        files = {file for unit, file in owners if unit in reopened}
        others = sorted({unit for unit, file in owners if file in files} - reopened)
        if others:
            raise RunDirectoryError(
                f"the commits of {len(reopened):,} units were deleted, e.g. {min(reopened)}, but their rows share "
                f"{', '.join(sorted(files)[:3])} with {len(others):,} units whose commits are there: these rows would "
                "count twice",
                remedy=f"restore what was deleted; or delete in '{self._storage.full_url(COMMITS)}' also those of "
                + join_units(others),
            )

    def _read(self, unit_ids: set[str]) -> list[Commit]:
        files = (f"{COMMITS}/{unit_id}.json" for unit_id in sorted(unit_ids))
        return [
            Commit.from_json(data, self._storage.full_url(file))
            for file, data in self._storage.read_many(files)
        ]

    def fold(self, *, min_new: int = 256) -> bool:
        """Put the commits made since the newest manifest into a new one, if they are many.

        Safe at any time and in any number of processes: one of them makes the next manifest, the others did
        nothing.

        Args:
            min_new: below so many new commits nothing is done.

        Returns:
            Whether this call made a manifest.
        """
        committed = self.load()
        if committed.unfolded < max(min_new, 1):
            return False
        return self.publish(committed.manifest, committed.table)

    def publish(self, previous: int, table: pa.Table) -> bool:
        """Make the manifest that follows number ``previous``; False if there is a newer one already.

        Without exclusive creation only the single committer may do this.

        Raises:
            StoreError: writing failed, or this process may not do it.
        """
        sink = pa.BufferOutputStream()
        # who made it makes the bytes unique, so that of two identical ones only one is "created here"
        pq.write_table(table.replace_schema_metadata({"made_by": new_attempt()}), sink, compression="zstd")
        file = manifest_file(previous + 1)
        data = sink.getvalue().to_pybytes()
        if self.exclusive:
            return self._storage.create(file, data) and self.newest_number() == previous + 1
        if self.lease is None:
            raise StoreError(
                f"'{self._storage.url}' is on a store that cannot create a file exclusively",
                remedy="let the driver do this while no other process uses the run",
            )
        with self._lock:
            self.lease.check()
            if self._storage.exists(file):
                return False
            self._storage.replace(file, data)
            return True

    def newest_number(self) -> int:
        """Number of the newest manifest; 0 where there is none."""
        return max((number for number, _ in self.manifests()), default=0)

    def manifests(self) -> list[tuple[int, str]]:
        """Numbers and files of all manifests, oldest first."""
        names = [
            name for name in self._storage.names(MANIFESTS) if name.endswith(".parquet") and name[0] != "."
        ]
        return sorted((int(name.removesuffix(".parquet")), f"{MANIFESTS}/{name}") for name in names)

    def read_manifest(self, file: str) -> pa.Table:
        """The commits that a manifest holds."""
        with self._storage.open_input(file) as stream:
            return with_tasks(pq.read_table(stream))

    def _newest_manifest(self) -> tuple[int, pa.Table]:
        return self._again_if_newer(self._read_newest)

    def _read_newest(self) -> tuple[int, pa.Table]:
        found = self.manifests()
        if not found:
            return 0, MANIFEST.empty_table()
        number, file = found[-1]
        return number, self.read_manifest(file)

    def _again_if_newer(self, read: Callable[[], tuple[int, pa.Table]]) -> tuple[int, pa.Table]:
        """Old manifests are removed in time: one that went between listing and reading has a successor."""
        before = self.newest_number()
        try:
            return read()
        except StoreError:
            if self.newest_number() == before:
                raise
            return read()


def join_units(units: Sequence[str]) -> str:
    """Units as an error names them: somebody is to delete the commit of each."""
    more = f" and {len(units) - _NAMED:,} more" if units[_NAMED:] else ""
    return ", ".join(units[:_NAMED]) + more


def manifest_file(number: int) -> str:
    """File of a manifest."""
    return f"{MANIFESTS}/{number:08d}.parquet"


def commit_text(commit: Commit) -> str:
    """A commit for people: indented JSON."""
    return json.dumps(json.loads(commit.to_json()), indent=2)
