"""A plan cuts the pairs of a job into units, before any work starts."""

from __future__ import annotations

from dataclasses import dataclass

from smoothcert.datasets import Source, UnitSpec
from smoothcert.job import Job

DRAWS_PER_UNIT = 250_000
"""Default size of a unit: minutes of work on a GPU, small enough to lose."""
SMALLEST_PARALLELISM = 8
"""Small inputs are cut into at least so many units, so that first rows appear early and workers share."""


@dataclass(frozen=True)
class Plan:
    """The units of a run.

    Attributes:
        units: in the order of the source.
        pairs: how many they hold.
        files: how many source files.
        data_digest: identity of the data.
    """

    units: tuple[UnitSpec, ...]
    pairs: int
    files: int
    data_digest: str

    def draws(self, job: Job) -> int:
        """Draws at most: targets may stop earlier."""
        return self.pairs * (job.certify.pilot_draws + job.certify.max_draws)


def make_plan(job: Job, source: Source) -> Plan:
    """Scan the source and cut it into units.

    Raises:
        SourceError: the source is empty, unreadable, or lacks a column.
    """
    files = list(source.files())
    pairs = sum(file.pairs for file in files)
    units = tuple(source.units(job.executor.pairs_per_unit or pairs_per_unit(job, pairs)))
    return Plan(units, pairs, len(files), source.digest())


def pairs_per_unit(job: Job, pairs: int) -> int:
    """Unit size by draws at most, but never so large that a small input is one unit."""
    by_draws = DRAWS_PER_UNIT // (job.certify.pilot_draws + job.certify.max_draws)
    by_share = -(-pairs // SMALLEST_PARALLELISM)
    return max(1, min(by_draws, by_share))
