"""``smoothcert retry``: run chosen quarantined pairs again; their new rows replace the old ones."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from smoothcert.cli import exit_codes
from smoothcert.cli.options import ExecutorKind, Overrides, RunDir, overrides
from smoothcert.cli.stored_job import job_of_run
from smoothcert.cli.terminal import Terminal
from smoothcert.errors import JobError, QueryError, did_you_mean

if TYPE_CHECKING:
    from smoothcert.runtime.driver import Driver, PhaseReport
    from smoothcert.runtime.retry import Chosen
    from smoothcert.store import RunDirectory
    from smoothcert.work.tasks import Phase


def retry(
    run_url: RunDir,
    where: Annotated[
        str,
        typer.Option(
            metavar="SQL", help="SQL condition on the quarantined rows of --table.", show_default=False
        ),
    ],
    table: Annotated[
        str, typer.Option(metavar="TABLE", help="The table that these rows are in.")
    ] = "certificates",
    set_: Overrides = None,
    executor: ExecutorKind = None,
) -> None:
    """Run quarantined pairs again, e.g. --where "error_class = 'DecodeError'". Run it again to resume.

    Pairs that were quarantined while they were attacked: 'smoothcert attack JOB --retry'. The job is the run's own;
    --set may change where and how it runs (executor, tracking, encoder.device, slots and threads), but nothing that the
    numbers depend on. Exit codes as for certify; 5 also if a unit of retries failed.
    """
    from smoothcert.cli.running import StopSignals, run_phase
    from smoothcert.runtime.driver import Driver
    from smoothcert.runtime.executor import Monitor
    from smoothcert.runtime.retry import of_tasks
    from smoothcert.store import CERTIFICATES, RunDirectory

    run = RunDirectory.open(run_url)
    job = job_of_run(run, overrides(set_, executor))
    certificates = table == CERTIFICATES.name
    if certificates:  # then nothing that only attacks need is loaded
        job = job.model_copy(update={"attacks": ()})
    driver = Driver(job, mending=certificates)
    terminal = Terminal(stderr=True)
    phase = _phase_of(driver, table)
    found = _choose(run, table, where, terminal)
    chosen = of_tasks(found, {task.task_id for task in phase.tasks})
    terminal.say(f"{_count(chosen):,} quarantined pairs to run again")
    if other := _count(found) - _count(chosen):
        left = f"{other:,} quarantined pairs are of attacks that the run's job does not have"
        if not chosen:
            raise JobError(left, remedy=_ATTACK_THEM)
        terminal.say(f"{left}: {_ATTACK_THEM}")
    if not chosen:
        return
    failed: list[str] = []

    def again(monitor: Monitor) -> PhaseReport:
        report = driver.retry(phase.name, monitor, chosen)
        failed.extend(report.failed)
        return report

    code = run_phase(driver, phase, again, StopSignals(terminal))
    sys.exit(code or (exit_codes.MISSING_ROWS if failed else 0))


def _count(chosen: Chosen) -> int:
    return sum(map(len, chosen.values()))


def _phase_of(driver: Driver, table: str) -> Phase:
    """The phase of the run's job that fills a table.

    Raises:
        JobError: the job has none.
    """
    phases = {task.table.name: phase for phase in driver.phases for task in phase.tasks}
    if table not in phases:
        raise JobError(
            f"--table {table}: the run's job fills no such table{did_you_mean(table, phases)}",
            remedy=f"use one of {', '.join(phases)}",
        )
    return phases[table]


def _choose(run: RunDirectory, table: str, where: str, terminal: Terminal) -> Chosen:
    """The pairs to run again; of certificates, says how to attack others again that the condition is true of.

    Raises:
        QueryError: the condition is not valid SQL on the table.
    """
    from smoothcert.runtime.retry import choose
    from smoothcert.store import CERTIFICATES, TABLES

    if table != CERTIFICATES.name:
        return choose(run, TABLES[table], where, option="--where")
    try:
        chosen = choose(run, CERTIFICATES, where, option="--where")
    except QueryError as exc:
        if not _count_attacked(run, where):
            raise
        raise QueryError(
            f'--where "{where}" is a condition on attack rows, which are not in the view quarantine',
            remedy=_ATTACK_THEM,
        ) from exc
    if not chosen and (attacked := _count_attacked(run, where)):
        terminal.say(f"{attacked:,} pairs were quarantined while they were attacked: {_ATTACK_THEM}")
    return chosen


_ATTACK_THEM = "attack them again with 'smoothcert attack JOB --retry' and the same condition"


def _count_attacked(run: RunDirectory, where: str) -> int:
    """Quarantined pairs of attacks that a condition is true of, each counted once for every attack."""
    from smoothcert.runtime.retry import choose
    from smoothcert.store import ATTACKS

    try:
        return _count(choose(run, ATTACKS, where, option="--where"))
    except QueryError:
        return 0
