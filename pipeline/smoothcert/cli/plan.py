"""``smoothcert plan``: what a job would do, and how long it would take here."""

from __future__ import annotations

from typing import Annotated

import typer

from smoothcert.cli.data_report import print_data
from smoothcert.cli.options import ExecutorKind, JobFile, Overrides, overrides, shorten_url
from smoothcert.cli.terminal import Terminal
from smoothcert.job import load_job


def plan(
    job_file: JobFile,
    set_: Overrides = None,
    executor: ExecutorKind = None,
    probe: Annotated[
        bool, typer.Option(help="Measure the speed of this device for a few seconds to estimate the time.")
    ] = True,
) -> None:
    """Show pairs, units, draws and the expected time, without certifying anything."""
    job = load_job(job_file, overrides(set_, executor))
    from smoothcert.runtime.driver import Driver
    from smoothcert.work.certify.probe import measure_draws_per_second

    driver = Driver(job)
    made = driver.plan
    terminal = Terminal()
    draws = made.draws(job)
    terminal.say(f"job        {job.name}")
    terminal.say(
        f"encoder    {driver.encoder.name}, {driver.encoder.device.type}, {driver.encoder.dtype}",
    )
    terminal.say(f"pairs      {made.pairs:,} in {made.files:,} files, {len(made.units):,} units")
    print_data(terminal, made, full=True)
    limit = "at most " if job.certify.targets else ""
    per_pair = f"{job.certify.pilot_draws} pilot + {limit}{job.certify.max_draws}"
    terminal.say(f"draws      {limit}{draws:,} ({per_pair} a pair)")
    terminal.say(f"run        {shorten_url(driver.url)}")
    if not probe:
        return
    rate = measure_draws_per_second(job, driver.source, made.units[0], driver.encoder)
    workers = job.executor.workers or 1
    seconds = draws / (rate * workers)
    terminal.say(
        f"time       {limit}about {_span(seconds)} on {workers} worker{'' if workers == 1 else 's'} at this device's "
        f"speed ({rate:,.0f} draws/s)",
    )


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
