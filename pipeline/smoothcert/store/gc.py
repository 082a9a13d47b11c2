"""``smoothcert gc``: deletes files that nothing refers to, and never a committed one.

Kept are: every file that the newest manifest, or a commit after it, names; every file that was named so at some
moment within the grace period, since a reader may still be at it; and every file younger than the grace period,
since its commit may be on its way. What goes: files left by superseded attempts or dead ones, small parts that were
compacted, manifests that have long had a successor, and what a killed process left half-written. Commits
themselves always stay: they are also the units' locks.

What remains assumed: no attempt, compaction or query takes longer than the grace, clocks being apart included,
from its first file to its commit or end. One that does fails, loudly: a commit or compaction looks at its files
again once it is made. Nothing is deleted while a committed file is missing, since an older one with its rows may
be left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from smoothcert.errors import JobError
from smoothcert.storage.filesystem import Entry
from smoothcert.store.commits import COMMITS, MANIFESTS
from smoothcert.store.lost import lost_rows
from smoothcert.store.parts import find_missing
from smoothcert.store.run_directory import WORKERS, RunDirectory
from smoothcert.store.tables.registry import TABLES

DEFAULT_GRACE = timedelta(hours=24)
"""Longer than any unit, lease or query takes."""
LEAST_GRACE = timedelta(hours=1)
"""The shortest that is taken while others may work on the run."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """A file that nothing refers to: its path below the run directory and its size in bytes."""

    file: str
    size_bytes: int


def collect(
    run: RunDirectory,
    *,
    grace: timedelta = DEFAULT_GRACE,
    dry_run: bool = False,
    nothing_else_runs: bool = False,
) -> list[Garbage]:
    """Delete what nothing refers to, and return it.

    Args:
        run: the run directory; others may work on it.
        grace: younger files stay; longer than any attempt and any query takes, clocks being apart included.
        dry_run: only tell.
        nothing_else_runs: the caller knows that no driver, worker, compaction or query is at work, nor begins
            before this ends: only then may the grace be below ``LEAST_GRACE``.

    Raises:
        JobError: the grace is too short.
        StoreError: a committed file is missing, or reading or deleting failed; nothing that counts is gone.
    """
    if grace < LEAST_GRACE and not (nothing_else_runs or dry_run):
        raise JobError(
            f"grace_s={grace.total_seconds():g} is less than an hour, which could delete files of work in progress",
            remedy=f"use at least {LEAST_GRACE.total_seconds():g}, or stop everything that uses "
            f"'{run.url}' and say so (--nothing-else-runs)",
        )
    horizon = datetime.now(UTC) - grace
    # the listing comes first: what is committed while this runs is found by the commits read below
    listed = list(_candidates(run))
    old = [(file, entry) for file, entry in listed if _before(entry, horizon)]
    manifests = [entry for entry in run.storage.entries(MANIFESTS) if _is_manifest(entry)]
    superseded = [
        (f"{MANIFESTS}/{entry.name}", entry)
        for entry, successor in zip(manifests, manifests[1:], strict=False)
        if _before(successor, horizon)
    ]
    held = [f"{MANIFESTS}/{entry.name}" for entry in manifests[len(superseded) :]]
    # while the first manifest is young, a reader may hold none
    kept = _list_named(run, held, from_none=bool(manifests) and not _before(manifests[0], horizon))
    _refuse_missing(run, {file: entry.size for file, entry in listed})
    garbage = [Garbage(file, entry.size) for file, entry in old if file not in kept]
    garbage += [Garbage(file, entry.size) for file, entry in superseded]
    if not dry_run:
        for item in garbage:
            run.storage.remove(item.file)
    return garbage


def _refuse_missing(run: RunDirectory, sizes: dict[str, int]) -> None:
    """Raise ``StoreError`` unless every file that counts now is there: what it replaced may be the last copy."""
    committed = run.commits.load()
    unseen = [
        part
        for table in TABLES
        for part in committed.parts(table)
        if sizes.get(part.file) != part.size_bytes  # or written after the listing
    ]
    missing = find_missing(run.storage, unseen)
    if missing:
        raise lost_rows(run, committed, missing, more="; nothing was deleted")


def _candidates(run: RunDirectory) -> Iterator[tuple[str, Entry]]:
    for directory in TABLES:
        for entry in run.storage.entries(directory):
            yield f"{directory}/{entry.name}", entry
    for directory in ("", COMMITS, MANIFESTS, "plan", WORKERS):
        for entry in run.storage.entries(directory):
            # leftovers of a killed process; what counts is not named like this
            left = entry.name.endswith(".tmp") or entry.name.startswith("probe-")
            # beside the plans lies what else was fixed at the start, by a name of its own: the retrieval pool
            if left or (directory == "plan" and entry.name.endswith(".parquet")):
                yield f"{directory}/{entry.name}".lstrip("/"), entry


def _is_manifest(entry: Entry) -> bool:
    return entry.name.endswith(".parquet") and not entry.name.startswith(".")


def _before(entry: Entry, moment: datetime) -> bool:
    """Whether a file is certainly older; one without a time is taken for young."""
    return entry.modified is not None and entry.modified < moment


def _list_named(run: RunDirectory, manifests: list[str], *, from_none: bool) -> set[str]:
    """Every file that a reader of any of these manifests, or of none of them, would open."""
    kept = {run.info.plan}
    known: set[str] | None = None
    for manifest in manifests:
        table = run.commits.read_manifest(manifest)
        kept |= {part["file"] for parts in table["parts"].to_pylist() for part in parts}
        if known is None:
            known = set(table["unit_id"].to_pylist())  # later manifests have these and more
    without = run.commits.parts_without(set() if from_none or known is None else known)
    return kept | {part.file for part in without}
