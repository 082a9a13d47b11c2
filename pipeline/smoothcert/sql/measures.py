"""What a run measures of each pair, as SQL over a row of ``certificates``.

A leaderboard averages it, and two runs can be compared in it pair by pair. Every pair of a run counts, as in
``certified_share``: a quarantined one is not certified, its certified cosine is 0, and where it has a label it is not
right. So two runs over one data set are about the same pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from smoothcert.catalogue.certificates import CATALOGUE
from smoothcert.catalogue.metrics import METRICS, Metric
from smoothcert.job import Job
from smoothcert.sql.claims import claims
from smoothcert.sql.literals import quote
from smoothcert.store.run_info import RunInfo

ACCURACIES = {"clean_accuracy": ("accuracy", "bare"), "class_accuracy": ("accuracy", "smoothed")}
"""Metrics that are one figure of two subjects: without noise, and under it."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of a run.

    Attributes:
        figure: its name: ``accuracy``, ``certified_share``, ``certified_accuracy`` (of all with a label),
            ``certified_cosine``, or a metric of the catalogue.
        kind: ``share`` of pairs or ``mean`` of numbers in [0, 1].
        value: SQL over a row of ``certificates``: true or false, or the number. NULL leaves the pair out.
        subject: ``smoothed``, or ``bare`` for the encoder without noise.
        certificate: what it rests on; empty for none.
        rule: of that certificate.
        radius: l2 radius in [0,1] pixels; None for none.
        cosine: that must hold; None for none.
    """

    figure: str
    kind: Literal["share", "mean"]
    value: str
    subject: str = "smoothed"
    certificate: str = ""
    rule: str = ""
    radius: float | None = None
    cosine: float | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What makes it the same figure in two runs."""
        return self.figure, self.subject, self.certificate, self.radius, self.cosine


def measures(info: RunInfo) -> list[Measure]:
    """Every figure of a run: accuracies and metrics, certified shares, certified accuracies, certified cosines."""
    return [
        *_metrics(info.job),
        *_certified(info),
        *_right_and_certified(info.job),
        *_cosines(info.job),
    ]


def metrics_of(job: Job) -> dict[str, Metric]:
    """The metrics that a job has figures of."""
    return {
        name: metric
        for name, metric in METRICS.items()
        if not metric.needs or getattr(job, metric.needs) is not None
    }


def metric_sql(metric: Metric, job: Job) -> str:
    """Its SQL, with the fields of the job that it names."""
    return metric.sql.format(**{metric.needs: getattr(job, metric.needs)} if metric.needs else {})


def label_is_known(job: Job) -> str:
    """SQL: whether a label is a class of the job; NULL where there is no label."""
    if job.zero_shot is None:
        return "CASE WHEN label IS NOT NULL THEN true END"
    return f"label IN ({', '.join(quote(label) for label in job.zero_shot.labels)})"


def _metrics(job: Job) -> Iterator[Measure]:
    for name, metric in metrics_of(job).items():
        figure, subject = ACCURACIES.get(name, (name, "smoothed"))
        sql = metric_sql(metric, job)
        if metric.kind == "mean":
            yield Measure(figure, "mean", f"coalesce(({sql})::DOUBLE, 0)", subject)
        else:
            yield Measure(figure, "share", _among(metric.of, f"coalesce({sql}, false)", job), subject)


def _certified(info: RunInfo) -> Iterator[Measure]:
    rules = {each.name: each.rule for each in CATALOGUE}
    for claim in claims(info):
        yield Measure(
            "target_certified" if claim.kind == "target" else "certified_share",
            "share",
            f"coalesce({claim.condition}, false)",
            certificate=claim.certificate,
            rule=rules.get(claim.certificate, ""),
            radius=claim.radius,
            cosine=claim.cosine,
        )


def _right_and_certified(job: Job) -> Iterator[Measure]:
    for each in job.certificates:
        if not each.right_figure:
            continue
        for position, radius in enumerate(job.certify.radii, start=1):
            right = f"{each.quantity.label} = label"
            held = f"coalesce({right} AND {each.holds_at(position, radius)}, false)"
            yield Measure(
                "certified_accuracy",
                "share",
                _among("labelled", held, job),
                certificate=each.name,
                rule=each.rule,
                radius=radius,
            )


def _cosines(job: Job) -> Iterator[Measure]:
    for each in job.certificates:
        if each.bound is None or not each.quantity.cosine:
            continue
        for position, radius in enumerate(job.certify.radii, start=1):
            yield Measure(
                "certified_cosine",
                "mean",
                f"coalesce({each.bound.column}[{position}], 0)",
                certificate=each.name,
                rule=each.rule,
                radius=radius,
            )


def _among(of: str, condition: str, job: Job) -> str:
    """The condition, NULL for pairs that a share is not out of."""
    return condition if of == "ok" else f"CASE WHEN {label_is_known(job)} THEN {condition} END"
