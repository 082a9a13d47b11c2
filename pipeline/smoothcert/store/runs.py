"""Directories that hold run directories, as ``output.runs`` does."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from smoothcert.errors import RunDirectoryError
from smoothcert.storage import Storage
from smoothcert.store.run_directory import RUN_FILE, RunDirectory


def find_runs(url: str | os.PathLike[str]) -> list[str]:
    """URLs of the runs at a place: itself where it is a run directory, else those directly below it, by name.

    Raises:
        RunDirectoryError: it is no run directory and has none below it.
        StoreError: listing failed.
    """
    storage = Storage(url)
    if storage.exists(RUN_FILE):
        return [storage.url]
    folders = storage.folders("")
    with ThreadPoolExecutor(max_workers=16) as pool:
        held = list(pool.map(lambda name: storage.exists(f"{name}/{RUN_FILE}"), folders))
    runs = [storage.full_url(name) for name, has_run in zip(folders, held, strict=True) if has_run]
    if not runs:
        raise RunDirectoryError(
            f"'{storage.url}' is not a run directory: it has no {RUN_FILE}, and no folder directly below it has one",
            remedy="name the directory that 'smoothcert certify' printed, or the one that holds it (output.runs)",
        )
    return runs


def open_runs(urls: Iterable[str | os.PathLike[str]]) -> list[RunDirectory]:
    """Open run directories, and all runs of each directory of runs.

    Raises:
        RunDirectoryError: there is none at a place, or one is damaged.
        StoreError: reading failed.
    """
    return [RunDirectory.open(run) for url in urls for run in find_runs(url)]
