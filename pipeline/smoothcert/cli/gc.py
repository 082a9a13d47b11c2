"""``smoothcert gc``: remove what can never count."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Console

from smoothcert.cli.options import RunDir


def gc(
    run_url: RunDir,
    grace_s: Annotated[
        float, typer.Option(help="Keep what is younger, or was replaced more recently.", min=0)
    ] = 86_400.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would go.")] = False,
) -> None:
    """Remove parts of attempts that lost, files that compaction replaced, and traces of crashes.

    Never a committed row, whatever runs at the same time.
    """
    from smoothcert.store import RunDirectory
    from smoothcert.store.gc import collect

    removed = collect(RunDirectory.open(run_url), grace=timedelta(seconds=grace_s), dry_run=dry_run)
    console = Console()
    if dry_run:
        for item in removed:
            console.print(item.file, highlight=False, soft_wrap=True, markup=False)
    size = sum(item.size_bytes for item in removed)
    verb = "would be removed" if dry_run else "removed"
    console.print(f"{len(removed):,} files, {size:,} bytes {verb}", highlight=False)
