"""``smoothcert import``: published certification logs as runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from smoothcert.cli.options import shorten_url
from smoothcert.cli.terminal import Terminal
from smoothcert.errors import JobError

if TYPE_CHECKING:
    from smoothcert.work.published.importing import Imported
    from smoothcert.work.published.logs import PublishedLog

_SHOWN = 3


def import_logs(
    logs: Annotated[
        list[str], typer.Argument(metavar="LOG [LOG...]", help="Log files of Cohen, Salman or DSRS.")
    ],
    runs: Annotated[str, typer.Option(help="Directory that holds run directories, a path or URL.")] = "runs",
    sigma: Annotated[
        float | None, typer.Option(help="Noise of the logs, where neither they nor their paths say it.")
    ] = None,
    draws: Annotated[int | None, typer.Option(help="Fresh draws an image (N).")] = None,
    alpha: Annotated[float | None, typer.Option(help="Failure probability of each radius.")] = None,
    data: Annotated[
        str, typer.Option(help="Name of the data set; logs of the same one can be compared pair by pair.")
    ] = "published",
) -> None:
    """Make runs of the vote rule from published certification logs, for 'query' and 'compare'.

    Radii are stored as the lower end of what rounds to the printed number. A log with a radius that its number of
    draws cannot have given is refused. Without --draws and --alpha, the usual pair that gives the largest radius is
    taken, and said.
    """
    from smoothcert.runtime.code_version import code_version
    from smoothcert.work.published.importing import Stated, import_log
    from smoothcert.work.published.logs import read_log

    terminal = Terminal()
    stated = Stated(sigma, draws, alpha, data)
    found = 0
    refused: list[JobError] = []
    for path in logs:
        try:
            log = read_log(path)
            if log is None:
                terminal.say(("left out   ", "yellow"), f"{path}: no line of it is a certification")
                continue
            _print(terminal, log, import_log(log, stated, runs, code_version()))
        except JobError as exc:
            if len(logs) == 1:
                raise
            refused.append(exc)
            terminal.say(("refused    ", "red"), str(exc))
            continue
        found += 1
    if refused:
        raise JobError(f"{len(refused)} of {len(logs)} logs were refused", remedy="see above for each")
    if not found:
        raise JobError(
            "none of the files is a certification log",
            remedy="give files with the columns idx, label, predict, radius, correct, time, or samplings of DSRS",
        )


def _print(terminal: Terminal, log: PublishedLog, made: Imported) -> None:
    start, end = min(pair.idx for pair in log.pairs), max(pair.idx for pair in log.pairs)
    terminal.say(f"{shorten_url(made.url)}")
    terminal.say(
        f"  {made.pairs:,} images of {log.path} (idx {start} to {end}), {made.abstained:,} without a "
        f"prediction; sigma {made.sigma:g}, "
        f"{made.draws:,} draws, alpha {made.alpha:g}"
    )
    if made.reach is not None:
        fits = (
            ", ".join(f"N={draws:,} alpha={alpha:g}" for draws, alpha in made.reach.fits) or "no usual pair"
        )
        terminal.say(
            f"  largest radius {made.reach.low:.4g} to {made.reach.high:.4g} sigma; reached where all draws agree: "
            f"{fits}"
        )
    if log.constant:
        terminal.say(
            ("  warning    ", "yellow"), "every prediction is of one class: the classifier is constant"
        )
    if log.left_out:
        first = "; ".join(f"line {number}: {text[:60]!r}" for number, text in log.left_out[:_SHOWN])
        terminal.say(("  left out   ", "yellow"), f"{len(log.left_out):,} lines are not results: {first}")
