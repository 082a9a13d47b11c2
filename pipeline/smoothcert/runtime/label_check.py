"""Whether the labels of the data are classes of the job, before any work."""

from __future__ import annotations

from smoothcert.datasets import LabelCount, Source, count_known
from smoothcert.errors import SourceError
from smoothcert.job import Job


def check_labels(job: Job, source: Source) -> LabelCount | None:
    """Count the labels that are classes of the job; None where the job has no classes, or wants no labels.

    Raises:
        SourceError: not one label is a class of the job, so that nothing could be said about accuracy; or the
            data cannot be read.
    """
    if job.zero_shot is None or job.data.columns.label is None:
        return None
    count = count_known(source.labels(), job.zero_shot.labels)
    if count.known:
        return count
    column = f"data.columns.label='{job.data.columns.label}'"
    without = "to null to certify predictions without labels"
    if not count.unknown and not count.refused:
        raise SourceError(
            f"no pair has a label: {column} is empty or absent in all {count.missing:,} pairs",
            remedy=f"set data.columns.label to the column of class names, or {without}",
        )
    raise SourceError(
        f"no label of the data ({column}) is a class of zero_shot.labels: {count}",
        remedy="write the classes in zero_shot.labels as the data has them; where the data has integers, say in "
        f"data.class_names what they stand for; or set data.columns.label {without}",
    )
