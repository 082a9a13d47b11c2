"""``smoothcert compact``: few large files in place of many small ones."""

from __future__ import annotations

from smoothcert.cli.options import RunDir
from smoothcert.cli.terminal import Terminal


def compact(run_url: RunDir) -> None:
    """Merge small committed files into large ones, so that queries open fewer; readers notice nothing.

    The small files stay for readers that opened the run before; ``smoothcert gc`` removes them after its grace.
    """
    from smoothcert.store import RunDirectory
    from smoothcert.store.compact import compact as merge

    done = merge(RunDirectory.open(run_url))
    Terminal().say(f"{done.files_before:,} files are {done.files_after:,} now")
