"""``smoothcert status``: how far a run is, read from its directory alone."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from smoothcert.cli.options import RunDir
from smoothcert.cli.terminal import Terminal
from smoothcert.errors import RunDirectoryError, StoreError

if TYPE_CHECKING:
    from smoothcert.runtime.status import RunStatus


def status(
    run_url: RunDir,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until the run is complete.")] = False,
    interval: Annotated[float, typer.Option(help="Seconds between refreshes.")] = 5.0,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")] = False,
) -> None:
    """Show the progress of a run: pairs done and quarantined, rates, workers and recent errors.

    Works from any machine that sees the run directory. Exit code 0 when every pair has its row and every attack
    that was begun is done, even one that the job no longer lists; else 1. With --watch it waits for a store that fails
    or a run that does not exist yet.
    """
    terminal = Terminal()
    while True:
        now = _wait_for(run_url, interval) if watch else _read(run_url)
        if json_:
            typer.echo(json.dumps(now.as_mapping()))
        else:
            for line in now.lines():
                terminal.say(line)
        if not watch or now.complete:
            break
        time.sleep(interval)
        if not json_:
            terminal.say()
    sys.exit(0 if now.complete else 1)


def _read(run_url: str) -> RunStatus:
    from smoothcert.runtime.status import read_status

    return read_status(run_url)


def _wait_for(run_url: str, interval: float) -> RunStatus:
    """The status, as soon as it can be read; says what is in the way."""
    from smoothcert.storage import Storage
    from smoothcert.store.run_directory import RUN_FILE

    terminal = Terminal(stderr=True)
    said = ""
    while True:
        try:
            try:
                return _read(run_url)
            except RunDirectoryError:
                if Storage(run_url).exists(RUN_FILE):
                    raise
                trouble = f"no run at '{run_url}' yet"
        except StoreError as exc:
            trouble = exc.message
        if trouble != said:
            terminal.say(f"{trouble}; waiting")
            said = trouble
        time.sleep(interval)
