"""``smoothcert gc``: deletes files that nothing refers to, and never a committed one.

Kept are: every file that the newest manifest, or a commit after it, names; every file that was named so at some
moment within the grace period, since a reader may still be at it; and every file younger than the grace period,
since its commit may be on its way. What goes: parts of attempts that lost or died, small parts that were
compacted, manifests that have long had a successor, and what a killed process left half-written. Commits
themselves always stay: they are also the units' locks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from smoothcert.store.commits import COMMITS, MANIFESTS
from smoothcert.store.filesystem import Entry
from smoothcert.store.run_directory import RunDirectory
from smoothcert.store.tables import TABLES

DEFAULT_GRACE = timedelta(hours=24)
"""Longer than any unit, lease or query takes."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """A file that nothing refers to: its path below the run directory and its size in bytes."""

    file: str
    size_bytes: int


def collect(run: RunDirectory, *, grace: timedelta = DEFAULT_GRACE, dry_run: bool = False) -> list[Garbage]:
    """Delete what nothing refers to, and return it.

    Args:
        run: the run directory; others may work on it.
        grace: younger files stay; longer than any attempt and any query takes, clocks being apart included.
        dry_run: only tell.

    Raises:
        StoreError: reading or deleting failed; nothing that counts is gone.
    """
    horizon = datetime.now(UTC) - grace
    # the listing comes first: what is committed while this runs is found by the commits read below
    old = [(file, entry) for file, entry in _candidates(run) if _before(entry, horizon)]
    listed = [entry for entry in run.storage.entries(MANIFESTS) if _is_manifest(entry)]
    superseded = [
        (f"{MANIFESTS}/{entry.name}", entry)
        for entry, successor in zip(listed, listed[1:], strict=False)
        if _before(successor, horizon)
    ]
    held = [f"{MANIFESTS}/{entry.name}" for entry in listed[len(superseded) :]]
    # while the first manifest is young, a reader may hold none
    kept = _named(run, held, from_none=bool(listed) and not _before(listed[0], horizon))
    garbage = [Garbage(file, entry.size) for file, entry in old if file not in kept]
    garbage += [Garbage(file, entry.size) for file, entry in superseded]
    if not dry_run:
        for item in garbage:
            run.storage.remove(item.file)
    return garbage


def _candidates(run: RunDirectory) -> Iterator[tuple[str, Entry]]:
    for directory in (*TABLES, "plan"):
        for entry in run.storage.entries(directory):
            # beside the plans lies what else was fixed at the start, by a name of its own: the retrieval pool
            if directory != "plan" or entry.name.endswith(".parquet"):
                yield f"{directory}/{entry.name}", entry
    for directory in ("", COMMITS, MANIFESTS):
        for entry in run.storage.entries(directory):
            # leftovers of a killed process; commits and manifests are not named like this
            if entry.name.endswith(".tmp") or entry.name.startswith("probe-"):
                yield f"{directory}/{entry.name}".lstrip("/"), entry


def _is_manifest(entry: Entry) -> bool:
    return entry.name.endswith(".parquet") and not entry.name.startswith(".")


def _before(entry: Entry, moment: datetime) -> bool:
    """Whether a file is certainly older; one without a time is taken for young."""
    return entry.modified is not None and entry.modified < moment


def _named(run: RunDirectory, manifests: list[str], *, from_none: bool) -> set[str]:
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
