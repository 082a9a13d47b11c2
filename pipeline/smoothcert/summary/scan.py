"""The one SQL statement behind a summary: every count and moment over the ok rows of a run."""

from __future__ import annotations

from typing import Any

from smoothcert.job import Job
from smoothcert.sql import Query
from smoothcert.sql.literals import quote
from smoothcert.sql.measures import label_is_known, metric_sql, metrics_of


def scan(query: Query, run_id: str, job: Job) -> dict[str, Any]:
    """Every number that a summary is made of, by name, in one pass over the committed rows.

    Args:
        query: an open query; other runs may be in it.
        run_id: the run.
        job: its job.
    """
    inner = ", ".join(f"{sql} AS {name}" for name, sql in _columns(job).items())
    outer = ", ".join(f"{sql} AS {name}" for name, sql in _aggregates(job).items())
    this_run = f"FROM certificates WHERE run_id = {quote(run_id)}"
    rows = query.rows(
        f"SELECT {outer}, (SELECT count(*) {this_run}) AS pairs "
        f"FROM (SELECT {inner} {this_run} AND status = 'ok')"
    )
    return dict(rows[0])


def _columns(job: Job) -> dict[str, str]:
    """What is aggregated, as plain columns: list elements are taken out once, not in every aggregate."""
    certify = job.certify
    plain = ("draws", "pilot_draws")
    # lists in SQL count from 1
    of_lists = {
        f"{form.column}_at_{i}": f"{form.column}[{i + 1}]"
        for each in job.certificates
        if each.quantity.cosine or (each.figure and each.bound is not None)
        for form, points in ((each.bound, certify.radii), (each.radius_at, certify.cosines))
        if form is not None
        for i in range(len(points))
    }
    radii = [each.radius.column for each in job.certificates if each.radius is not None]
    return {
        **{name: name for name in (*plain, *radii)},
        **of_lists,
        **{f"metric_{name}": metric_sql(metric, job) for name, metric in metrics_of(job).items()},
        "claims": _claims(job),
        "is_known": label_is_known(job),
        **{
            f"is_right_{each.name}": f"{each.quantity.label} = label"
            for each in job.certificates
            if each.right_figure
        },
        **{f"decision_{i}": f"target_decision[{i + 1}]" for i in range(len(certify.targets))},
    }


def _claims(job: Job) -> str:
    """Whether a row certifies anything."""
    forms = [(each, form) for each in job.certificates for form in each.forms]
    lists = [f"list_max({form.column})" for each, form in forms if form is not each.radius]
    plain = [form.column for each, form in forms if form is each.radius]
    return f"coalesce({', '.join(lists + plain)}) IS NOT NULL OR list_contains(target_decision, 'certified')"


def _aggregates(job: Job) -> dict[str, str]:
    """SQL of every number over the ok rows."""
    found = {
        "ok": "count(*)",
        "labelled": "coalesce(count_if(is_known), 0)::BIGINT",
        "unknown_labels": "coalesce(count_if(NOT is_known), 0)::BIGINT",
        "claiming": "coalesce(count_if(claims), 0)::BIGINT",
        "draws": "coalesce(sum(draws + pilot_draws), 0)::BIGINT",
        "pilot_draws": "coalesce(sum(pilot_draws), 0)::BIGINT",
    }

    def count(name: str, condition: str) -> None:
        # a comparison with NULL is not true: what is not certified, or has no label, is not counted; but where
        # every one is NULL, count_if itself is NULL
        found[name] = f"coalesce(count_if({condition}), 0)::BIGINT"

    def moments(name: str, column: str) -> None:
        found[f"{name}_n"] = f"count({column})"
        found[f"{name}_mean"] = f"avg({column})"
        found[f"{name}_var"] = f"var_samp({column})"

    for name, metric in metrics_of(job).items():
        if metric.kind == "share":
            count(name, f"metric_{name}")
        else:
            moments(name, f"metric_{name}")
    for i, radius in enumerate(job.certify.radii):
        at_least = f">= '{radius!r}'::DOUBLE"
        for each in job.certificates:
            if each.bound is not None and each.quantity.cosine:
                moments(f"{each.name}_{i}", f"{each.bound.column}_at_{i}")
                for j, cosine in enumerate(job.certify.cosines):
                    enough = f"{each.bound.column}_at_{i} >= '{cosine!r}'::DOUBLE"
                    if each.radius_at is not None:
                        enough = f"{each.radius_at.column}_at_{j} {at_least}"
                    count(f"{each.name}_{i}_at_{j}", enough)
            if each.figure:
                held = each.holds_at(i, radius, "{column}_at_{position}")
                count(f"{each.figure}_{i}", held)
                if each.right_figure:
                    count(f"{each.right_figure}_{i}", f"is_right_{each.name} AND {held}")
    for i in range(len(job.certify.targets)):
        for decision in ("certified", "refuted", "budget"):
            count(f"target_{i}_{decision}", f"decision_{i} = '{decision}'")
    return found
