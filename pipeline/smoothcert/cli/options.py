"""Arguments that several commands share."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

JobFile = Annotated[
    Path, typer.Argument(metavar="JOB", help="Job file (YAML); examples are in jobs/.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="A.B=VALUE", help="Override a field of the job, e.g. certify.sigma=0.5. Repeatable."
    ),
]
ExecutorKind = Annotated[
    str | None, typer.Option("--executor", metavar="local|ray", help="Short for --set executor.kind=...")
]
RunDir = Annotated[str, typer.Argument(metavar="RUN", help="Run directory.", show_default=False)]


def shorten_url(url: str) -> str:
    """A run directory for people: relative where it lies below the current directory."""
    here = f"{Path.cwd()}/"
    return url.removeprefix(here) if url.startswith(here) else url


def typed_url(url: str) -> str:
    """The same as one would type it in a shell here."""
    return shlex.quote(shorten_url(url))


def overrides(given: list[str] | None, executor: str | None = None) -> list[str]:
    """All overrides in the order in which they apply."""
    return [*(given or []), *([f"executor.kind={executor}"] if executor else [])]
