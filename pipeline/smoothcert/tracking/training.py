"""A training in MLflow while it runs: losses, held-out figures, recipe, and the model card at the end.

One run for each directory that is trained into, found again by the tag ``smoothcert.training``; a resumed training goes
on in it. Metrics are ``<stage>/<figure>`` over steps: parts of the loss, ``held_out_<part>``,
``robustness_score_s<sigma>`` and ``smooth_norm_s<sigma>``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from smoothcert.redaction import without_secrets
from smoothcert.storage import join
from smoothcert.tracking import figures
from smoothcert.tracking.database import ensure_database
from smoothcert.tracking.destination import destination
from smoothcert.tracking.quiet import quiet_mlflow
from smoothcert.tracking.track import find_experiment, find_or_create, log_batches, translated

if TYPE_CHECKING:
    from smoothcert.training.train import Training


class TrackedTraining:
    """The run of a training in MLflow; every method raises ``TrackingError`` where MLflow is away.

    Args:
        training: what is tracked; its job says where.

    Attributes:
        where: what to open in order to see the run, for a person.
    """

    def __init__(self, training: Training) -> None:
        job = training.job
        self._training = training
        self._to = destination(join(job.output.runs, job.name), job.tracking)
        with self._client() as client:
            experiment = find_experiment(client, job.tracking.experiment, self._to)
            run, created = find_or_create(
                client,
                experiment,
                name=f"train {training.section.method}, {job.name}",
                started=int(time.time() * 1000),
                tags={
                    "smoothcert.role": "training",
                    "smoothcert.training": f"{without_secrets(training.place.url)} {training.recipe[:16]}",
                },
                more={
                    "smoothcert.job": job.name,
                    "smoothcert.data_digest": training.data_digest,
                    "smoothcert.encoder_digest": training.encoder.digest,
                },
            )
            self._run_id: str = run.info.run_id
            self.where = f"MLflow: {self._to.how_to_look(experiment, self._run_id)}"
            client.update_run(self._run_id, status="RUNNING")
            if created:
                self._describe(client)

    def log(self, stage: str, step: int, losses: Mapping[str, float], held_out: Mapping[str, float]) -> None:
        """Losses of training and held-out figures at a step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        named = {f"{stage}/{name}": value for name, value in {**losses, **held_out}.items()}
        metrics = [Metric(name, value, now, step) for name, value in named.items()]
        with self._client() as client:
            client.log_batch(self._run_id, metrics=metrics)

    def finish(self, status: str) -> None:
        """The end: ``FINISHED`` with card and scores, ``KILLED`` or ``FAILED``."""
        place = self._training.place
        with self._client() as client:
            for document in ("README.md", "scores.json"):
                text = place.read_if_present(document)
                if text is not None and status == "FINISHED":
                    client.log_text(self._run_id, text.decode(), document)
            client.set_terminated(self._run_id, status)

    def _describe(self, client: Any) -> None:
        from mlflow.entities import Param

        params = [Param(name, value) for name, value in figures.parameters(self._training.job).items()]
        log_batches(client, self._run_id, params=params)
        client.log_text(self._run_id, figures.job_document(self._training.job), "job.yaml")

    @contextmanager
    def _client(self) -> Iterator[Any]:
        with quiet_mlflow(), translated(self._to):
            if self._to.database is not None and self._to.artifacts is not None:
                ensure_database(self._to.database, self._to.artifacts)
            from mlflow import MlflowClient

            yield MlflowClient(tracking_uri=self._to.uri)
