"""What is left of a job: all of it, or of a run that is there already; and how many workers that keeps busy."""

from __future__ import annotations

from dataclasses import dataclass

from smoothcert.runtime.driver import Driver
from smoothcert.runtime.ledger import LEAST_DRAWS
from smoothcert.storage.filesystem import Storage
from smoothcert.store import RunDirectory
from smoothcert.store.run_directory import RUN_FILE


@dataclass(frozen=True)
class Remaining:
    """The certification that a job still asks for.

    Attributes:
        exists: whether its run directory is there.
        differences: why that belongs to another job; empty where it does not.
        pairs: pairs without a row.
        units: units that hold them.
        done: pairs that have one.
        draws_per_pair: draws that these took, pilots included; None where there are none.
    """

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
        return max(1, min(workers, max(self.units, int(draws / LEAST_DRAWS)), max(self.pairs, 1)))


def remaining_work(driver: Driver) -> Remaining:
    """What is left, as of now. Nothing is created.

    Raises:
        RunDirectoryError: the run directory is damaged.
        StoreError: reading failed.
    """
    plan = driver.plan
    if not Storage(driver.url).exists(RUN_FILE):
        return Remaining(False, (), plan.pairs, len(plan.units), 0, None)
    run = RunDirectory.open(driver.url)
    differences = tuple(run.info.differences(driver.identity))
    if differences:
        return Remaining(True, differences, plan.pairs, len(plan.units), 0, None)
    committed = run.commits.load()
    left = list(run.pending(committed))
    return Remaining(
        True,
        (),
        sum(len(unit) for unit in left),
        len(left),
        committed.pairs,
        committed.draws / committed.pairs if committed.draws else None,
    )
