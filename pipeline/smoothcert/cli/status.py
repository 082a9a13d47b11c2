"""``smoothcert status``: how far a run is, read from its directory alone."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated

import typer
from rich.console import Console

from smoothcert.cli.options import RunDir


def status(
    run_url: RunDir,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until the run is complete.")] = False,
    interval: Annotated[float, typer.Option(help="Seconds between refreshes.")] = 5.0,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show committed, in flight and quarantined pairs, rates, workers and last errors of a run.

    Works from any machine that sees the run directory. Exit code 0 when every pair has its row, else 1.
    """
    from smoothcert.runtime.status import read_status

    console = Console()
    while True:
        now = read_status(run_url)
        if json_:
            typer.echo(json.dumps(now.as_mapping()))
        else:
            for line in now.lines():
                console.print(line, highlight=False, soft_wrap=True, markup=False)
        if not watch or now.complete:
            break
        time.sleep(interval)
        if not json_:
            console.print()
    sys.exit(0 if now.complete else 1)
