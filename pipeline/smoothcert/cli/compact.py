"""``smoothcert compact``: few large files in place of many small ones."""

from __future__ import annotations

from smoothcert.cli.options import RunDir
from smoothcert.cli.terminal import Terminal


def compact(run_url: RunDir) -> None:
    """Merge small committed files into large ones, so that queries open fewer files. Safe while others read.

    Readers that have the run open keep the small files; ``smoothcert gc`` removes them after its grace period.
    """
    from smoothcert.store import RunDirectory
    from smoothcert.store.compact import compact as merge

    done = merge(RunDirectory.open(run_url))
    Terminal().say(f"merged {done.files_before:,} files into {done.files_after:,}")
