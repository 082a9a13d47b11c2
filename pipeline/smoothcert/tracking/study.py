"""A study in MLflow: its runs under one parent, which holds what ranks them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from smoothcert.job import Job
from smoothcert.summary.summary import Summary
from smoothcert.tracking.curves import Points, curves, picture
from smoothcert.tracking.destination import Destination, destination
from smoothcert.tracking.figures import NOTE_LIMIT
from smoothcert.tracking.track import (
    RESTS_ON,
    TrackingResult,
    find_experiment,
    find_parent,
    log_batches,
    new_metrics,
    open_client,
)

_LATER = "smoothcert study FILE, with the same study file again"
_MOST_CURVES = 10
"""Runs in one picture; more cannot be told apart."""
_MOST_COMPARED = 12
"""Runs in MLflow's comparison; beside more of them nothing can be read."""
_MOST_RUNS = 10_000
"""Runs of one job that are looked through; one beyond them is logged again."""


@dataclass(frozen=True)
class TrackedStudy:
    """What MLflow has of a study.

    Attributes:
        parent: where it is; its ``run_id`` is empty where there is none yet.
        rests_on: digest of what the parent shows.
        status: of the parent; empty where there is none.
        runs: the same of each run, by run id; as ``track_run`` was told.
    """

    parent: TrackingResult
    rests_on: str
    status: str
    runs: Mapping[str, str]


def read_tracked(url: str, job: Job) -> TrackedStudy:
    """What MLflow has of a study, in few requests.

    Args:
        url: directory of the study.
        job: of one of its runs.

    Raises:
        TrackingError: MLflow is away, or refused.
    """
    to = destination(url, job.tracking)
    with open_client(to, _LATER) as client:
        experiment = find_experiment(client, job.tracking.experiment, to)
        wanted = f"tags.`smoothcert.job` = '{job.name}'"
        found = client.search_runs([experiment], filter_string=wanted, max_results=_MOST_RUNS)
    parents = [each for each in found if each.data.tags.get("smoothcert.role") == "job"]
    runs = {
        each.data.tags["smoothcert.run_id"]: each.data.tags.get(RESTS_ON, "")
        for each in found
        if "smoothcert.run_id" in each.data.tags
    }
    if not parents:
        return TrackedStudy(_result(to, experiment, ""), "", "", runs)
    (parent, *_) = parents
    rests_on = parent.data.tags.get(RESTS_ON, "")
    return TrackedStudy(_result(to, experiment, parent.info.run_id), rests_on, parent.info.status, runs)


def mark_study(url: str, job: Job, status: str) -> None:
    """Say how a study stands: its parent is made where there is none.

    Args:
        url: directory of the study.
        job: of one of its runs.
        status: ``RUNNING``, ``FINISHED``, ``FAILED``, or ``KILLED`` where it was told to stop.

    Raises:
        TrackingError: MLflow is away, or refused.
    """
    to = destination(url, job.tracking)
    with open_client(to, _LATER) as client:
        experiment = find_experiment(client, job.tracking.experiment, to)
        _mark(client, find_parent(client, experiment, job.name, int(time.time() * 1000), url), status)


def _mark(client: Any, parent: Any, status: str) -> None:
    if parent.info.status == status:
        return
    if status == "RUNNING":
        client.update_run(parent.info.run_id, status=status)
    else:
        client.set_terminated(parent.info.run_id, status)


def track_study(
    url: str,
    job: Job,
    figures: Mapping[str, float],
    documents: Mapping[str, str],
    summaries: Mapping[str, Summary],
    rests_on: str = "",
    status: str = "FINISHED",
) -> TrackingResult:
    """Write what ranks the runs of a study to their parent, or bring it up to date; the runs are tracked already.

    Args:
        url: directory of the study.
        job: of one of its runs: its name is the study's, its section says where to.
        figures: leading figures of every run, by metric (study_metrics.py).
        documents: artifacts by name; ``leaderboard.md`` is also what the parent's page says.
        summaries: of the runs, by label, for curves.
        rests_on: digest of what all this rests on, noted at the end.
        status: as of ``mark_study``.

    Raises:
        TrackingError: MLflow is away, or refused.
    """
    to = destination(url, job.tracking)
    with open_client(to, _LATER) as client:
        from mlflow.entities import RunTag

        experiment = find_experiment(client, job.tracking.experiment, to)
        parent = find_parent(client, experiment, job.name, int(time.time() * 1000), url)
        run_id = parent.info.run_id
        children = _sort_children(client, experiment, run_id, list(summaries.values()))
        note = f"{_side_by_side(experiment, children)}\n\n{documents.get('leaderboard.md', '')}"
        metrics = new_metrics(parent, figures)
        log_batches(client, run_id, metrics, tags=[RunTag("mlflow.note.content", _cut(note))])
        for name, text in documents.items():
            client.log_text(run_id, text, name)
        panels = study_curves(summaries)
        if panels:
            client.log_figure(run_id, picture(panels, job.name), "curves.png")
        _mark(client, parent, status)
        client.set_tag(run_id, RESTS_ON, rests_on)
    return _result(to, experiment, run_id)


def _result(to: Destination, experiment: str, run_id: str) -> TrackingResult:
    return TrackingResult(
        uri=to.shown,
        url=to.page(experiment, run_id),
        experiment_id=experiment,
        run_id=run_id,
        parent_run_id=run_id,
        created=False,
        how_to_look=to.how_to_look(experiment, run_id),
    )


def _sort_children(client: Any, experiment: str, parent: str, summaries: Sequence[Summary]) -> list[str]:
    """MLflow's ids of the study's runs, in their order; others of its children are named so that nobody mixes them up.

    Those are of an earlier state of code, data or job; in MLflow they would have the names of the present ones.
    """
    wanted = f"tags.`mlflow.parentRunId` = '{parent}'"
    found = client.search_runs([experiment], filter_string=wanted, max_results=_MOST_RUNS)
    by_run = {each.data.tags.get("smoothcert.run_id", ""): each for each in found}
    present = [by_run.pop(each.run_id).info.run_id for each in summaries if each.run_id in by_run]
    for run_id, each in by_run.items():
        label = each.data.tags.get("smoothcert.variant")
        if label and each.info.run_name == label:
            client.update_run(each.info.run_id, name=f"{label} (earlier, {run_id[-6:]})")
    return present


def _side_by_side(experiment: str, children: Sequence[str]) -> str:
    """A link to MLflow's comparison of some runs; its list of runs folds them, and its charts are of parents then."""
    runs, experiments = (quote(json.dumps(list(ids))) for ids in (children[:_MOST_COMPARED], [experiment]))
    link = f"#/compare-runs?runs={runs}&experiments={experiments}&workflowType=machine_learning"
    return f"[The runs side by side]({link}); curves and files are under Artifacts."


def _cut(note: str) -> str:
    """As much of a description as MLflow takes, up to the end of a line."""
    if len(note) <= NOTE_LIMIT:
        return note
    end = "\n\nThe rest is in leaderboard.md."
    return note[: NOTE_LIMIT - len(end)].rpartition("\n")[0] + end


def study_curves(summaries: Mapping[str, Summary]) -> dict[str, dict[str, Points]]:
    """For each curve of a run one picture with that curve of every run."""
    found: dict[str, dict[str, Points]] = {}
    for label, summary in list(summaries.items())[:_MOST_CURVES]:
        for title, lines in curves(summary).items():
            for name, points in lines.items():
                found.setdefault(f"{title}, {name}", {})[label] = points
    return found
