"""Committed files that are lost or were changed: which units lack their rows, and how these come back."""

from __future__ import annotations

from collections.abc import Collection

from smoothcert.errors import StoreError
from smoothcert.store.commits import COMMITS, join_units
from smoothcert.store.manifest import Committed
from smoothcert.store.run_directory import RunDirectory


def lost_rows(
    run: RunDirectory, committed: Committed, files: Collection[str], *, more: str = ""
) -> StoreError:
    """The error for committed files that cannot be read any more.

    Args:
        run: the run directory.
        committed: its commits.
        files: the files, below the run directory; at least one.
        more: what else to say of the moment.
    """
    rows = zip(committed.table["unit_id"].to_pylist(), committed.table["parts"].to_pylist(), strict=True)
    units = [unit_id for unit_id, parts in rows if any(part["file"] in files for part in parts)]
    first = run.storage.full_url(min(files))
    others = f" (and {len(files) - 1:,} more files)" if len(files) > 1 else ""
    return StoreError(
        f"'{first}'{others} is committed, but it is missing or was changed: {len(units):,} units lack their rows{more}",
        remedy="restore it from a copy; or, while no driver works, delete <unit>.json of these units in "
        f"'{run.storage.full_url(COMMITS)}' and run the job again with 'smoothcert certify' (or 'attack'), and only "
        f"they are done again: {join_units(units)}",
    )
