"""``smoothcert leaderboard``: runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smoothcert.cli.terminal import Terminal
from smoothcert.errors import JobError, did_you_mean

if TYPE_CHECKING:
    from smoothcert.store import RunDirectory


def leaderboard(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="STUDY|RUN...",
            help="Study directories, run directories or directories of runs.",
            show_default=False,
        ),
    ],
    baseline: Annotated[
        str | None, typer.Option(help="Name of the run that others are compared with, as the table has it.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write every figure with its interval to this file.")
    ] = None,
) -> None:
    """Rank runs by accuracy, certified shares, certified cosines and attacks, and compare them pair by pair.

    Figures are over all pairs of a run: a quarantined pair is not certified. In SQL they are the view leaderboard.
    """
    from smoothcert.studies.finding import find_labelled_runs
    from smoothcert.studies.leaderboard import make_leaderboard
    from smoothcert.studies.tables import to_csv

    runs, default = find_labelled_runs(places)
    _check_baseline(baseline, runs)
    board = make_leaderboard(runs, baseline or default)
    if csv is not None:
        csv.write_text(to_csv(board), encoding="utf-8")
    from smoothcert.cli.show_leaderboard import print_leaderboard

    print_leaderboard(Terminal(), board)


def _check_baseline(baseline: str | None, runs: dict[str, RunDirectory]) -> None:
    if baseline is not None and baseline not in runs:
        raise JobError(
            f"--baseline '{baseline}' is not one of these runs{did_you_mean(baseline, runs)}",
            remedy=f"use one of {', '.join(repr(label) for label in list(runs)[:8])}",
        )
