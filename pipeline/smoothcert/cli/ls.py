"""``smoothcert ls``: the runs of a directory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from smoothcert.cli.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Sequence


def ls(
    directory: Annotated[
        str, typer.Argument(metavar="DIR", help="A directory of runs (output.runs): a path or an fsspec URL.")
    ] = "runs",
    json_: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the runs of a directory: name, state, pairs with a row, and what varies between runs of one job.

    The oldest comes first. 'smoothcert query DIR "SELECT ..."' asks all of them at once.
    """
    from smoothcert.runtime.listing import list_runs

    runs = list_runs(directory)
    if json_:
        for run in runs:
            typer.echo(json.dumps(run.as_mapping()))
        return
    terminal = Terminal()
    for line in _aligned([("run", "state", "pairs", "what varies"), *(run.cells() for run in runs)]):
        terminal.say(line)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
