"""``smoothcert gc``: remove what can never count."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from smoothcert.cli.options import RunDir
from smoothcert.cli.terminal import Terminal, count_of
from smoothcert.errors import RunDirectoryError

if TYPE_CHECKING:
    from smoothcert.store import RunDirectory


def gc(
    run_url: RunDir,
    grace_s: Annotated[
        float,
        typer.Option(
            help="Keep files newer than this, or replaced more recently. Longer than any unit, compaction and query "
            "takes; at least 3600.",
            min=0,
        ),
    ] = 86_400.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be removed; remove nothing.")
    ] = False,
    nothing_else_runs: Annotated[
        bool,
        typer.Option(
            "--nothing-else-runs",
            help="Promise that nothing else uses the run: allows a grace of less than an hour.",
        ),
    ] = False,
) -> None:
    """Remove files left by superseded attempts, by compaction and by crashes.

    Committed rows are never removed, even while others work on the run, if the grace period is longer than their work.
    """
    from smoothcert.store import RunDirectory
    from smoothcert.store.gc import LEAST_GRACE, collect

    run = RunDirectory.open(run_url)
    grace = timedelta(seconds=grace_s)
    if nothing_else_runs and grace < LEAST_GRACE and not dry_run:
        _refuse_life(run)
        with run.committing():
            removed = collect(run, grace=grace, nothing_else_runs=True)
    else:
        removed = collect(run, grace=grace, dry_run=dry_run)
    terminal = Terminal()
    if dry_run:
        for item in removed:
            terminal.say(item.file)
    size = sum(item.size_bytes for item in removed)
    verb = "would be removed" if dry_run else "removed"
    terminal.say(f"{count_of(len(removed), 'file')}, {size:,} bytes {verb}")


def _refuse_life(run: RunDirectory) -> None:
    from smoothcert.store.events import read_workers

    alive = [state.worker for state in read_workers(run.storage, now=time.time()) if state.alive]
    if alive:
        raise RunDirectoryError(
            f"--nothing-else-runs, but '{alive[0]}' was at work on '{run.url}' within the last minute",
            remedy="stop it, wait a minute and try again, or use a grace of at least an hour",
        )
