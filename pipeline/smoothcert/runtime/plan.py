"""A plan cuts the pairs of a job into units, before any work starts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

from smoothcert.datasets import LabelCount, LeftOut, Source, SourceFile, UnitSpec
from smoothcert.errors import JobError
from smoothcert.job import Job
from smoothcert.runtime.label_check import check_labels
from smoothcert.store import CERTIFICATES

DRAWS_PER_UNIT = 250_000
"""Default size of a unit: minutes of work on a GPU, small enough to lose."""
SMALLEST_PARALLELISM = 8
"""Small inputs are cut into at least so many units, so that first rows appear early and workers share."""

DATA_FILE = "plan/data.json"
"""Where a run keeps ``Plan.about_data``."""


@dataclass(frozen=True)
class Plan:
    """The units of a run.

    Attributes:
        units: in the order of the source.
        pairs: how many they hold.
        files: the source files, with the versions of the images that they name.
        data_digest: identity of the data.
        covers: what of the data the digest covers, in words.
        labels: how many labels are classes of the job; None where the job has no classes, or wants no labels.
        left_out: what was seen in the data and is no part of any pair.
    """

    units: tuple[UnitSpec, ...]
    pairs: int
    files: tuple[SourceFile, ...]
    data_digest: str
    covers: str
    labels: LabelCount | None
    left_out: tuple[LeftOut, ...]

    @property
    def images_digest(self) -> str:
        """Hex digest of the versions of all images that the data names by path; empty where images are inside."""
        named = [file.images.marks for file in self.files if file.images is not None]
        total = hashlib.sha256()
        for marks in named:
            total.update(marks.tobytes())
        return total.hexdigest() if named else ""

    def draws(self, job: Job) -> int:
        """Draws at most: targets may stop earlier."""
        return self.pairs * (job.certify.pilot_draws + job.certify.max_draws)

    def about_data(self) -> str:
        """The text of ``plan/data.json``: what the digest covers, the labels, and what is no part of any pair."""
        labels = None if self.labels is None else dataclasses.asdict(self.labels)
        left_out = [dataclasses.asdict(entry) for entry in self.left_out]
        data = {
            "digest": self.data_digest,
            "images": self.images_digest,
            "covers": self.covers,
            "labels": labels,
            "left_out": left_out,
        }
        return json.dumps(data, indent=2) + "\n"


def make_plan(job: Job, source: Source) -> Plan:
    """Scan the source and cut it into units.

    Raises:
        JobError: a column of data.keep has the name of a column of rows.
        SourceError: the source is empty, unreadable, lacks a column, or has no label that is a class of the job.
    """
    for name in job.data.kept:
        if name in {column.name for column in CERTIFICATES.columns}:
            raise JobError(
                f"data.keep: '{name}' is the name of a column that rows have already",
                remedy="rename the column in the data, or leave it out",
            )
    files = tuple(source.files())
    pairs = sum(file.pairs for file in files)
    units = tuple(source.units(job.executor.pairs_per_unit or pairs_per_unit(job, pairs)))
    labels = check_labels(job, source)
    return Plan(
        units,
        pairs,
        files,
        source.digest(),
        source.covers,
        labels,
        source.left_out(),
    )


def pairs_per_unit(job: Job, pairs: int) -> int:
    """Unit size by draws at most, but never so large that a small input is one unit."""
    by_draws = DRAWS_PER_UNIT // (job.certify.pilot_draws + job.certify.max_draws)
    by_share = -(-pairs // SMALLEST_PARALLELISM)
    return max(1, min(by_draws, by_share))
