"""``smoothcert retry``: run chosen quarantined pairs again; their new rows replace the old ones."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from smoothcert.cli.options import ExecutorKind, Overrides, RunDir, overrides
from smoothcert.errors import JobError, QueryError
from smoothcert.job import Job, parse_job

if TYPE_CHECKING:
    from smoothcert.runtime.retry import Chosen
    from smoothcert.store import RunDirectory


def retry(
    run_url: RunDir,
    where: Annotated[
        str,
        typer.Option(metavar="SQL", help="Condition on the view quarantine.", show_default=False),
    ],
    set_: Overrides = None,
    executor: ExecutorKind = None,
) -> None:
    """Certify quarantined pairs again, e.g. --where "error_class = 'DecodeError'". The same command resumes.

    Pairs that were quarantined while they were attacked are no rows of that view: 'smoothcert attack JOB --retry'. The
    job is the run's own; --set may change where and how it runs (executor, tracking, encoder.device, slots and
    threads), but nothing that the numbers depend on. Exit codes as for certify; 5 also if a unit of retries failed.
    """
    from smoothcert.cli.certify import EXIT_MISSING_ROWS, run_to_end
    from smoothcert.runtime.driver import Driver
    from smoothcert.runtime.retry import retry_units
    from smoothcert.store import RunDirectory

    run = RunDirectory.open(run_url)
    driver = Driver(_job_of(run.info.job, run.url, overrides(set_, executor)), mending=True)
    chosen = _chosen(run, where)
    count = sum(map(len, chosen.values()))
    Console(stderr=True).print(f"{count:,} quarantined pairs to run again", highlight=False)
    if not chosen:
        return
    units = retry_units(run, chosen, run.commits.load())
    failed: list[str] = []
    code = run_to_end(
        driver,
        lambda monitor: driver.retry(monitor, units),
        on_report=lambda report: failed.extend(report.failed),
    )
    sys.exit(code or (EXIT_MISSING_ROWS if failed else 0))


def _chosen(run: RunDirectory, where: str) -> Chosen:
    """The pairs to certify again; says how to attack others again that the condition is true of.

    Raises:
        QueryError: the condition is not valid SQL on the view quarantine.
    """
    from smoothcert.runtime.retry import choose

    try:
        chosen = choose(run, where)
    except QueryError as exc:
        if not _attacked(run, where):
            raise
        raise QueryError(
            f'--where "{where}" is a condition on attack rows, which are not in the view quarantine',
            remedy=_ATTACK_THEM,
        ) from exc
    if not chosen and (attacked := _attacked(run, where)):
        Console(stderr=True).print(
            f"{attacked:,} pairs were quarantined while they were attacked: {_ATTACK_THEM}", highlight=False
        )
    return chosen


_ATTACK_THEM = "attack them again with 'smoothcert attack JOB --retry' and the same condition"


def _attacked(run: RunDirectory, where: str) -> int:
    """Quarantined pairs of attacks that a condition is true of, each counted once for every attack."""
    from smoothcert.runtime.attack_retry import choose_attacks

    try:
        return sum(map(len, choose_attacks(run, where).values()))
    except QueryError:
        return 0


def _job_of(stored: Job, url: str, changes: list[str]) -> Job:
    """The stored job at the place where the run is now, with overrides that leave its numbers alone."""
    runs, _, name = url.rstrip("/").rpartition("/")
    # as JSON: a name may read like a number or a date
    place = [f"output.runs={json.dumps(runs or '/')}", f"output.run={json.dumps(name)}"]
    job = parse_job(stored.to_yaml(), [*changes, *place], origin="the run's job")
    if job.science() != stored.science():
        raise JobError(
            "--set changes something that the run's numbers depend on",
            remedy="retry with the job as it is, or start a new run with 'smoothcert certify'",
        )
    return job
