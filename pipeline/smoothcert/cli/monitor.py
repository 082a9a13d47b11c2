"""``smoothcert monitor``: does the encoder, or the data, certify less than it did."""

from __future__ import annotations

import math
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smoothcert.cli import exit_codes
from smoothcert.cli.options import ExecutorKind, Overrides, overrides, shorten_url
from smoothcert.cli.terminal import Terminal
from smoothcert.errors import JobError, StoreError

if TYPE_CHECKING:
    from smoothcert.job import Job
    from smoothcert.monitor.history import MonitorDirectory, Night, Trend, Watched
    from smoothcert.store import RunDirectory

Against = Annotated[
    str | None, typer.Option(metavar="RUN", help="Finished run that nights are compared with.")
]


def monitor(
    place: Annotated[
        str,
        typer.Argument(
            metavar="JOB", help="Job file; with --history a monitor's directory will do.", show_default=False
        ),
    ],
    against: Against = None,
    claim: Annotated[
        str | None, typer.Option(help="What is claimed, e.g. 'angular>=0.8@0.25'; default: the first target.")
    ] = None,
    new_data: Annotated[
        bool, typer.Option("--new-data", help="The pairs are not those of RUN: compare shares, not pairs.")
    ] = False,
    pairs: Annotated[int, typer.Option(min=10, help="Pairs that are certified a night.")] = 200,
    tolerance: Annotated[
        float, typer.Option(min=0.0, max=0.99, help="Drops of the certified share up to this are accepted.")
    ] = 0.02,
    alpha: Annotated[
        float,
        typer.Option(min=1e-9, max=0.5, help="Probability of ever raising a false alarm, over all nights."),
    ] = 0.01,
    night: Annotated[
        str | None, typer.Option(help="Name of the night; default: today's date (UTC).", show_default=False)
    ] = None,
    directory: Annotated[
        str | None,
        typer.Option(help="Where nights are kept; default: RUNS/NAME.monitor.", show_default=False),
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Certify nothing; show the nights so far.")
    ] = False,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the history to this file.")] = None,
    page: Annotated[
        Path | None,
        typer.Option("--page", help="Write the trend page to this file, too: it is DIRECTORY/trend.html."),
    ] = None,
    set_: Overrides = None,
    executor: ExecutorKind = None,
) -> None:
    """Certify a random part of the pairs, and test whether fewer of them are certified than in RUN.

    Every night is an ordinary run on pairs that are drawn for it. If on no night the certified share of all pairs is
    more than --tolerance below that of RUN, no alarm is ever raised, with probability 1 - alpha, however many nights
    there are.
    The same command goes on with a night that was cut off, and does nothing for one that is done.

    Exit codes: 0 no drop so far; 1 a drop: the alarm stands; 2 bad input; others as of certify, and the night is not
    recorded.
    """
    from smoothcert.job import load_job
    from smoothcert.monitor.history import MonitorDirectory
    from smoothcert.storage import join

    if history and not Path(place).is_file():
        _finish(MonitorDirectory(place), csv, page)
    job = load_job(Path(place), overrides(set_, executor))
    found = MonitorDirectory(directory or join(job.output.runs, f"{job.name}.monitor"))
    if history:
        _finish(found, csv, page)
    if against is None:
        raise JobError("--against is missing", remedy="give the run that nights are compared with")
    name = night or datetime.now(UTC).date().isoformat()
    from smoothcert.monitor.nightly import check_night
    from smoothcert.store import RunDirectory

    reference = RunDirectory.open(against)
    watched = _settle(found, reference, claim, not new_data, (tolerance, alpha), pairs)
    check_night(name, found.names())
    if found.night(name) is None:
        _do_night(found, watched, job, name, reference)
    _finish(found, csv, page)


def _settle(
    found: MonitorDirectory,
    reference: RunDirectory,
    claim: str | None,
    paired: bool,
    levels: tuple[float, float],
    pairs: int,
) -> Watched:
    from smoothcert.monitor.history import Watched
    from smoothcert.monitor.nightly import count_certified, find_claim

    chosen = find_claim(reference.info, claim, "reference")
    share = count_certified(reference, chosen)
    seed = secrets.randbits(48)
    return found.settle(
        Watched(reference.url, reference.run_id, chosen.claim, paired, share, *levels, pairs, seed)
    )


def _do_night(
    found: MonitorDirectory, watched: Watched, job: Job, name: str, reference: RunDirectory
) -> None:
    """Certify the night's pairs and record what they say; leave where that did not come to its end."""
    from smoothcert.cli.running import run_job
    from smoothcert.monitor.nightly import check_night, job_of, measure, same_claims
    from smoothcert.runtime.driver import Driver

    driver = Driver(job_of(job, watched, name))
    driver.check()
    same_claims(watched, driver.run.info, reference.info)
    code = run_job(driver)
    if code not in (0, exit_codes.NOT_SOUND):
        Terminal(stderr=True).say(f"night {name} is not recorded: run the same command again")
        sys.exit(code)
    night = measure(watched, name, driver.run, reference)
    check_night(name, found.names())  # another night may have ended meanwhile
    found.add(night)


def _finish(found: MonitorDirectory, csv: Path | None, page: Path | None) -> None:
    """Show the nights, keep the page, and leave with the exit code that the nights deserve."""
    from smoothcert.monitor.page import make_trend_page

    trend, terminal = found.trend(), Terminal()
    _print(terminal, trend, found.url)
    html = make_trend_page(trend, found.url)
    try:
        terminal.say(f"page: {shorten_url(found.keep_page(html))}")
    except StoreError as exc:  # the nights are kept, and they count
        terminal.say(("no page kept: ", "yellow"), str(exc))
    for option, file, text in (("--csv", csv, trend.to_csv()), ("--page", page, html)):
        if file is not None:
            _write(option, file, text)
    sys.exit(0 if trend.alarm is None else exit_codes.NOT_SOUND)


def _write(option: str, file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as exc:
        what = "history" if option == "--csv" else "page"
        raise StoreError(
            f"{option} {file}: cannot write the {what}: {exc.strerror or exc}",
            remedy="name a file in a directory that is there and can be written to",
        ) from exc


def _print(terminal: Terminal, trend: Trend, url: str) -> None:
    from rich.table import Table

    from smoothcert.monitor.history import needed_evidence, reference_share

    watched = trend.watched
    terminal.say(f"{shorten_url(url)}: {watched.claim} against {watched.reference_id}")
    table = Table()
    for column in ("night", "pairs", "certified", "reference", "gained", "lost", "evidence"):
        table.add_column(column, justify="left" if column == "night" else "right")
    for position, each in enumerate(trend.nights):
        table.add_row(*_cells(each, reference_share(watched, each), trend.evidence[position]))
    terminal.print(table)
    needed = math.exp(needed_evidence(watched))
    if trend.alarm is None:
        terminal.say(
            f"no drop of more than {watched.tolerance:.1%} shown (alarm at evidence {needed:,.0f}; false alarms on any "
            f"night: at most {watched.alpha:g})"
        )
        return
    terminal.say(
        ("drop: ", "bold red"),
        f"since night {trend.nights[trend.alarm].night} the certified share is shown to have been more than "
        f"{watched.tolerance:.1%} below the reference's on some night (probability of a false alarm at most "
        f"{watched.alpha:g})",
    )
    terminal.say("  mend it, then begin another monitor (--directory); the alarm of this one stands")


def _cells(night: Night, reference: float, evidence: float) -> tuple[str, ...]:
    changed = ("" if count is None else f"{count:,}" for count in (night.gained, night.lost))
    shown = math.exp(min(evidence, 700.0))
    return (
        night.night,
        f"{night.pairs:,}",
        f"{night.share:.1%}",
        f"{reference:.1%}",
        *changed,
        f"{shown:.3g}" if shown < 1e6 else ">1e6",
    )
