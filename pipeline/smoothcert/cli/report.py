"""``smoothcert report``: one page about one or several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smoothcert.cli.terminal import Terminal
from smoothcert.errors import StoreError


def report(
    run_urls: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN [RUN...]", help="Run directories, or directories of runs.", show_default=False
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path("report.html"),
    pairs: Annotated[
        int,
        typer.Option(min=0, max=500, help="How many of the least and the most robust pairs are shown, each."),
    ] = 24,
    price: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="What a worker costs an hour, in any currency; default: executor.price_per_worker_hour of the job.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write one self-contained HTML page about one run, or about several runs side by side.

    It shows what is certified, curves against the radius, pairs with their pictures (read again from the source),
    breakdowns and cost; every figure comes with its data and its SQL. The page opens from disk, loads nothing, and runs
    no code but its own. With several runs the first is the one that the others are compared with.
    """
    from smoothcert.report import make_report
    from smoothcert.store.runs import open_runs

    runs = open_runs(run_urls)
    page = make_report(runs, pairs=pairs, price=price)
    try:
        output.write_text(page, encoding="utf-8")
    except OSError as exc:
        raise StoreError(
            f"--output {output}: cannot write the report: {exc.strerror or exc}",
            remedy="name a file in a directory that is there and can be written to",
        ) from exc
    Terminal().say(f"{output}  ({len(page.encode()) / 1e6:.1f} MB, {len(runs)} run{'s' * (len(runs) > 1)})")
