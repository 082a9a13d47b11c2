"""``smoothcert audit``: every row of a run against the rules, every attack against every certificate."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from smoothcert.cli.terminal import Terminal


def audit(
    run_urls: Annotated[
        list[str], typer.Argument(metavar="RUN [RUN...]", help="Run directories.", show_default=False)
    ],
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object per run.")] = False,
) -> None:
    """Check runs for anything that voids a certificate, and for attacks that beat one.

    Exit codes: 0 no findings; 1 findings, with the pairs concerned; 2 no such run.
    """
    from smoothcert.audit.audit import audit_runs

    audits = audit_runs(run_urls)
    terminal = Terminal()
    for result in audits:
        if json_:
            typer.echo(result.to_json(), nl=False)
            continue
        for line in result.lines():
            terminal.say(line)
    sys.exit(0 if all(result.sound for result in audits) else 1)
