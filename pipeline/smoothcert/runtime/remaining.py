"""What is left of a job: all of it, or of a run that is there already; and how many workers that keeps busy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smoothcert.errors import RunDirectoryError
from smoothcert.job import Job
from smoothcert.runtime.code_version import code_version
from smoothcert.runtime.plan import Plan
from smoothcert.storage import Storage, join
from smoothcert.store import RunDirectory, RunIdentity
from smoothcert.store.run_directory import RUN_FILE
from smoothcert.store.runs import find_runs

if TYPE_CHECKING:
    from smoothcert.runtime.driver import Driver


@dataclass(frozen=True)
class Remaining:
    """The certification that a job still asks for.

    Attributes:
        url: of its run directory; None where the encoder must be known to tell.
        exists: whether its run directory is there.
        differences: why that belongs to another job; empty where it does not.
        pairs: pairs without a row.
        units: units that hold them.
        done: pairs that have one.
        draws_per_pair: draws that these took, pilots included; None where there are none.
    """

    url: str | None
    exists: bool
    differences: tuple[str, ...]
    pairs: int
    units: int
    done: int
    draws_per_pair: float | None

    def busy_workers(self, workers: int, draws: float) -> int:
        """How many of so many workers have something to do, if so many draws are left.

        Units are cut while fewer than three wait for a worker, but none to less than a few seconds of work.
        """
        from smoothcert.runtime.ledger import LEAST_DRAWS

        return max(1, min(workers, max(self.units, int(draws / LEAST_DRAWS)), max(self.pairs, 1)))


def remaining_work(driver: Driver) -> Remaining:
    """What is left, as of now. Nothing is created.

    Raises:
        RunDirectoryError: the run directory is damaged.
        StoreError: reading failed.
    """
    if not Storage(driver.url).exists(RUN_FILE):
        return _all_of(driver.plan, driver.url)
    run = RunDirectory.open(driver.url)
    return _left_of(run, driver.plan, run.info.differences(driver.identity))


def remaining_if_same_encoder(job: Job, plan: Plan) -> Remaining:
    """What is left if the encoder is that of the job's run, which is not looked at.

    Raises:
        RunDirectoryError: a run directory is damaged.
        StoreError: reading failed.
    """
    if job.output.run is not None:
        url = join(job.output.runs, job.output.run)
        if not Storage(url).exists(RUN_FILE):
            return _all_of(plan, url)
        run = RunDirectory.open(url)
        return _left_of(run, plan, run.info.differences(_as_of(run, job, plan)))
    try:
        runs = [RunDirectory.open(each) for each in find_runs(job.output.runs)]
    except RunDirectoryError:  # there are none yet
        return _all_of(plan, None)
    same = [run for run in runs if not run.info.differences(_as_of(run, job, plan))]
    return _left_of(max(same, key=lambda run: run.info.created), plan, []) if same else _all_of(plan, None)


def _as_of(run: RunDirectory, job: Job, plan: Plan) -> RunIdentity:
    return RunIdentity(job, plan.data_digest, run.info.encoder_digest, code_version())


def _all_of(plan: Plan, url: str | None) -> Remaining:
    return Remaining(url, False, (), plan.pairs, len(plan.units), 0, None)


def _left_of(run: RunDirectory, plan: Plan, differences: Sequence[str]) -> Remaining:
    if differences:
        return Remaining(run.url, True, tuple(differences), plan.pairs, len(plan.units), 0, None)
    committed = run.commits.load()
    left = list(run.pending(committed))
    return Remaining(
        run.url,
        True,
        (),
        sum(len(unit) for unit in left),
        len(left),
        committed.pairs,
        committed.draws / committed.pairs if committed.draws else None,
    )
