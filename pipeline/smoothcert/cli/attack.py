"""``smoothcert attack``: certify what is left of a job, attack every pair, and audit the one by the other."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from smoothcert.cli.options import ExecutorKind, JobFile, Overrides, overrides
from smoothcert.cli.running import run_job
from smoothcert.cli.terminal import Terminal
from smoothcert.errors import JobError
from smoothcert.job import load_job

if TYPE_CHECKING:
    from smoothcert.runtime.driver import Driver
    from smoothcert.runtime.retry import Chosen


def attack(
    job_file: JobFile,
    set_: Overrides = None,
    executor: ExecutorKind = None,
    retry: Annotated[
        str | None,
        typer.Option(
            "--retry",
            metavar="SQL",
            help="Also attack quarantined pairs again: a condition on the quarantined rows of the table attacks, e.g. "
            "\"error_class = 'WorkerKilledError'\". A chosen pair is attacked again on all subjects and at all budgets "
            "of that attack, and all these rows are replaced. The same command resumes.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Like certify, for a job that has attacks; with --retry, attack quarantined pairs again.

    Pairs that have no certificate yet are certified first. Results go into the table attacks of the same run, and the
    audit compares them with the certificates at the end. Exit codes are those of certify.
    """
    job = load_job(job_file, overrides(set_, executor))
    if not job.attacks:
        raise JobError(
            "the job has no 'attacks' section",
            remedy="add e.g. attacks: [{attack: pgd, norm: l2, budgets: [0.25]}]",
        )
    from smoothcert.runtime.driver import Driver

    driver = Driver(job)
    sys.exit(run_job(driver, {} if retry is None else choose_again(driver, retry)))


def choose_again(driver: Driver, where: str) -> Chosen:
    """The pairs to attack again, before any work; says how many."""
    from smoothcert.runtime.retry import choose, of_tasks
    from smoothcert.store import ATTACKS, RunDirectory

    found = choose(RunDirectory.open(driver.url), ATTACKS, where, option="--retry")
    mine = of_tasks(found, {section.attack_id for section in driver.job.attacks})
    terminal = Terminal(stderr=True)
    terminal.say(f"attacking {_count(mine):,} quarantined pairs again")
    if len(mine) < len(found):
        terminal.say(
            f"{_count(found) - _count(mine):,} more belong to attacks that this job does not have",
        )
    return mine


def _count(chosen: Chosen) -> int:
    """Pairs, each counted once for every attack."""
    return sum(map(len, chosen.values()))
