"""One run into MLflow: by the driver at the end, or by ``smoothcert track`` later; twice changes nothing.

    experiment (tracking.experiment)
    └── parent: the job, by name; of a study its leaderboard and state, see study.py. All runs of one job meet under it
        └── child: one run directory, found again by the tag smoothcert.run_id, named by what varies

Per-pair data stays in Parquet; MLflow gets the leading figures as metrics, every figure with its interval in
figures.csv, curves, parameters, the data set, job.yaml, summary.json.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from smoothcert.errors import SmoothcertError, TrackingError
from smoothcert.job import Job, TrackingSection
from smoothcert.job.naming import defence_name, run_title
from smoothcert.redaction import without_secrets, without_secrets_of
from smoothcert.storage.waiting import waiting_aloud
from smoothcert.store import CommitLog, RunDirectory, RunInfo
from smoothcert.summary.summary import Summary
from smoothcert.tracking import figures
from smoothcert.tracking.curves import curves, picture
from smoothcert.tracking.database import ensure_database
from smoothcert.tracking.destination import Destination, destination
from smoothcert.tracking.quiet import quiet_mlflow

_LIMIT_S = 30.0
"""About how long a server that is not reached, or says nothing, is waited for (quiet.py)."""
RESTS_ON = "smoothcert.rests_on"
"""Tag of a run in MLflow: digest of what it shows; empty where nobody said."""
STUDY_URL = "smoothcert.study_url"
"""Tag of a parent: directory of the study whose runs meet under it. How such a parent stands, its study says alone."""
_LATER = "smoothcert track RUN"
_PARAMS, _METRICS = 100, 800
"""In one call, of which MLflow takes 100 and 1,000 with all that comes along."""
_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Without it MLflow guesses what an experiment holds, and may open it on a page of traces."""
_NO_DOCUMENTS: Mapping[str, str] = MappingProxyType({})
_DIGEST_LIMIT = 36
"""Characters of a data set's digest in MLflow; the whole one is a tag."""


@dataclass(frozen=True, slots=True)
class TrackingResult:
    """Where a run was tracked.

    Attributes:
        uri: the store, without credentials.
        url: the run's page (of a study that of its parent), or the store where no server shows pages.
        experiment_id: MLflow's experiment.
        run_id: MLflow's id of the child: parameters, metrics, data set, artifacts; of a study that of its parent.
        parent_run_id: MLflow's id of the job.
        created: False if the run was there and was updated.
        how_to_look: what a person opens, or runs first, to see that page.
    """

    uri: str
    url: str
    experiment_id: str
    run_id: str
    parent_run_id: str
    created: bool
    how_to_look: str


def track_run(
    run_url: str,
    summary: Summary,
    job: Job,
    tracking: TrackingSection | None = None,
    label: str = "",
    documents: Mapping[str, str] = _NO_DOCUMENTS,
    rests_on: str = "",
) -> TrackingResult:
    """Write a run's parameters, lineage, figures and documents to MLflow, or update them.

    Results are not touched: whatever happens here, the run directory is complete without it.

    Args:
        run_url: the run directory.
        summary: its figures.
        job: the resolved job, as the driver ran it.
        tracking: where to; default ``job.tracking``.
        label: the run's name in a study; it keeps it when it is tracked again without one.
        documents: more artifacts by name, e.g. the report.
        rests_on: digest of what all this rests on; noted at the end, so that ``read_tracked`` tells what is there.

    Raises:
        TrackingError: MLflow is away (known within seconds), or refused.
        RunDirectoryError: ``run_url`` is no run directory.
    """
    tracking = tracking or job.tracking
    run = RunDirectory.open(run_url)
    to = destination(run_url, tracking)
    with open_client(to) as client:
        experiment = find_experiment(client, tracking.experiment, to)
        parent = find_parent(client, experiment, job.name, _milliseconds(run.info.created))
        child, created = find_or_create(
            client,
            experiment,
            name=label or run_title(job),
            started=_milliseconds(run.info.created),
            tags={"smoothcert.role": "variant", "smoothcert.run_id": run.run_id},
            more={
                "mlflow.parentRunId": parent.info.run_id,
                "smoothcert.job": job.name,
                "smoothcert.defence": defence_name(job.encoder),
                **({"smoothcert.variant": label} if label else {}),
                **_lineage_tags(run.info, run_url),
            },
        )
        if label and child.info.run_name != label:
            client.update_run(child.info.run_id, name=label)
        _write(client, child, run.info, summary, job)
        for name, text in documents.items():
            client.log_text(child.info.run_id, text, name)
        ended = _last_commit(run)
        of_study = label or child.data.tags.get("smoothcert.variant") or parent.data.tags.get(STUDY_URL)
        for mlflow_run in (child,) if of_study else (child, parent):  # how a study stands, it says itself
            if summary.finished:
                client.set_terminated(mlflow_run.info.run_id, "FINISHED", end_time=ended)
            else:
                client.update_run(mlflow_run.info.run_id, status="RUNNING")
        client.set_tag(child.info.run_id, RESTS_ON, rests_on)
    return TrackingResult(
        uri=to.shown,
        url=to.page(experiment, child.info.run_id),
        experiment_id=experiment,
        run_id=child.info.run_id,
        parent_run_id=parent.info.run_id,
        created=created,
        how_to_look=to.how_to_look(experiment, child.info.run_id),
    )


@contextmanager
def open_client(to: Destination, later: str = _LATER) -> Iterator[Any]:
    """MLflow's client for a store, made first where it is embedded and new; what it raises is ours.

    Args:
        to: the store.
        later: what logs later what is not logged now.

    Raises:
        TrackingError: MLflow is away, or refused.
    """
    aloud = waiting_aloud(f"for MLflow at '{to.shown}'", _LIMIT_S) if to.remote else nullcontext()
    with quiet_mlflow(), translated(to, later), aloud:
        if to.database is not None and to.artifacts is not None:
            ensure_database(to.database, to.artifacts)
        from mlflow import MlflowClient

        yield MlflowClient(tracking_uri=to.uri)


def find_parent(client: Any, experiment: str, name: str, started: int, study_url: str = "") -> Any:
    """The run under which all runs of a job, or of the study at ``study_url``, meet; made where there is none."""
    parent, _ = find_or_create(
        client,
        experiment,
        name=name,
        started=started,
        tags={"smoothcert.role": "job", "smoothcert.job": name},
        more={STUDY_URL: without_secrets(study_url)} if study_url else None,
    )
    return parent


def _write(client: Any, child: Any, info: RunInfo, summary: Summary, job: Job) -> None:
    from mlflow.entities import Param, RunTag

    run_id = child.info.run_id
    # parameters cannot change in MLflow: what a resume ran with (workers, slots) is in the newest job.yaml
    params = [Param(k, v) for k, v in figures.parameters(job).items() if k not in child.data.params]
    tags = [RunTag("mlflow.note.content", figures.description(summary))]
    metrics = new_metrics(child, figures.metrics(summary))
    log_batches(client, run_id, metrics, params, tags)
    if not child.inputs.dataset_inputs:
        client.log_inputs(run_id, [_dataset(info, job)])
    client.log_text(run_id, figures.job_document(job), "job.yaml")
    client.log_text(run_id, figures.summary_document(summary), "summary.json")
    client.log_text(run_id, figures.figures_document(summary), "figures.csv")
    panels = curves(summary)
    if panels and summary.finished:
        client.log_figure(
            run_id, picture(panels, f"{job.name}: certified, sigma {summary.sigma:g}"), "curves.png"
        )


def new_metrics(mlflow_run: Any, numbers: Mapping[str, float]) -> list[Any]:
    """MLflow's metrics of what is new or has another value than the run has."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [
        Metric(name, value, now, 0)
        for name, value in numbers.items()
        if mlflow_run.data.metrics.get(name) != value
    ]


def log_batches(
    client: Any,
    run_id: str,
    metrics: Sequence[Any] = (),
    params: Sequence[Any] = (),
    tags: Sequence[Any] = (),
) -> None:
    """Log all of it in one call, or as few as MLflow's limits allow; tags go with the first."""
    calls = max(1, -(-len(metrics) // _METRICS), -(-len(params) // _PARAMS))
    for call in range(calls):
        client.log_batch(
            run_id,
            metrics=metrics[call * _METRICS : (call + 1) * _METRICS],
            params=params[call * _PARAMS : (call + 1) * _PARAMS],
            tags=() if call else tags,
        )


def _dataset(info: RunInfo, job: Job) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    first = job.data.uris[0]
    scheme = first.partition("://")[0] if "://" in first else "local"
    return DatasetInput(
        Dataset(
            name=job.name,
            digest=info.data_digest[:_DIGEST_LIMIT],
            source_type=scheme,
            source=figures.dataset_source(job),
            profile=json.dumps({"num_rows": info.pairs, "digest": info.data_digest}),
        ),
        [InputTag("mlflow.data.context", "certification")],
    )


def _lineage_tags(info: RunInfo, run_url: str) -> dict[str, str]:
    return {
        "smoothcert.fingerprint": info.fingerprint,
        "smoothcert.code_version": info.code_version,
        "smoothcert.data_digest": info.data_digest,
        "smoothcert.encoder_digest": info.encoder_digest,
        "smoothcert.run_url": without_secrets(run_url),
        "mlflow.source.name": f"smoothcert {info.code_version}",
        "mlflow.source.type": "JOB",
    }


def find_experiment(client: Any, name: str, to: Destination) -> str:
    """Id of the experiment of this name, made if it is not there.

    Raises:
        TrackingError: it was deleted.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=to.artifacts, tags=_KIND))
        except MlflowException:
            # another driver made it in this moment, or it cannot be made
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"tracking.experiment='{name}' was deleted in MLflow at {to.shown}",
            remedy=f"mlflow experiments restore --experiment-id {found.experiment_id}; or name another",
        )
    return str(found.experiment_id)


def find_or_create(
    client: Any,
    experiment: str,
    *,
    name: str,
    started: int,
    tags: Mapping[str, str],
    more: Mapping[str, str] | None = None,
) -> tuple[Any, bool]:
    """The run that carries these tags, with what it holds; and whether it was made now."""
    wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    found = client.search_runs([experiment], filter_string=wanted, max_results=1)
    everything = {**tags, **(more or {})}
    if found:
        for key, value in everything.items():
            if found[0].data.tags.get(key) != value:
                client.set_tag(found[0].info.run_id, key, value)
        return found[0], False
    return client.create_run(experiment, start_time=started, tags=everything, run_name=name), True


def _last_commit(run: RunDirectory) -> int:
    """Milliseconds since 1970 of the newest commit; of the run's creation where there is none."""
    moments = CommitLog(run.storage, exclusive=False).load().table["committed_at"].to_pylist()
    return int(max(moments) * 1000) if moments else _milliseconds(run.info.created)


def _milliseconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1000)


@contextmanager
def translated(to: Destination, later: str = _LATER) -> Iterator[None]:
    """MLflow's exceptions, and those of what it stands on, as one of ours with store and remedy.

    Args:
        to: the store.
        later: what logs later what is not logged now.
    """
    try:
        yield
    except SmoothcertError:
        raise
    except Exception as exc:
        text = without_secrets_of(" ".join(str(exc).split()), to.uri)[:500]
        if _is_away(exc):
            raise TrackingError(
                f"MLflow at {to.shown} cannot be reached: {_reason(text)}",
                remedy=f"the results are complete without it; when it is back, run: {later}",
            ) from exc
        raise TrackingError(
            f"MLflow at {to.shown} refused: {type(exc).__name__}: {text}",
            remedy=f"the results are complete without it; fix the cause, then run: {later}",
        ) from exc


def _reason(text: str) -> str:
    """The end of the chain that urllib3 tells: what a person can act on."""
    last = re.search(r"\[Errno -?\d+\] ([^\"')]+)", text)
    if last is not None:
        return last[1]
    return "no answer in time" if "timed out" in text else text


def _is_away(exc: BaseException | None) -> bool:
    while exc is not None:
        if type(exc).__module__.startswith(("requests", "urllib3")) or isinstance(
            exc, (ConnectionError, TimeoutError)
        ):
            return True
        if "API request to" in str(exc) and "failed with exception" in str(exc):
            return True
        exc = exc.__cause__ or exc.__context__
    return False
