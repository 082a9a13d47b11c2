"""Tracking into the database beside the runs, read back through MLflow's own client and SQLite."""

import csv
import json
import multiprocessing
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from smoothcert.errors import TrackingError
from smoothcert.job import Job, TrackingSection
from smoothcert.summary.summary import Summary
from smoothcert.tracking import track_run
from smoothcert.tracking.database import ensure_database
from smoothcert.tracking.destination import sqlite_uri
from smoothcert.tracking.quiet import quiet_mlflow
from smoothcert.tracking.study import mark_study

from .conftest import JOB, RunMaker


def client(uri: str) -> Any:
    with quiet_mlflow():
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=uri)


def count(uri: str, table: str) -> int:
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as connection:
        found = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    connection.close()
    return int(found[0])


def test_a_run_is_shown_whole(make_run: RunMaker, beside: str, tmp_path: Path) -> None:
    url, summary, job = make_run()
    result = track_run(url, summary, job, job.tracking)
    with quiet_mlflow():
        child = client(beside).get_run(result.run_id)
        parent = client(beside).get_run(result.parent_run_id)
    assert result.created and result.url == beside
    assert parent.info.run_name == "sample" and parent.info.status == "FINISHED"
    assert (
        child.info.run_name == "no defence, sigma 0.5, up to 1,000 draws, digits-clip"
        and child.info.status == "FINISHED"
    )
    assert child.data.tags["mlflow.parentRunId"] == result.parent_run_id
    assert child.data.tags["smoothcert.run_id"] == summary.run_id
    assert child.data.tags["smoothcert.data_digest"] == "d" * 64
    assert child.data.tags["smoothcert.encoder_digest"] == "e" * 64
    assert child.data.tags["smoothcert.code_version"] == "0.1.0"
    assert len(child.data.tags["smoothcert.fingerprint"]) == 64
    assert child.data.params["certify.sigma"] == "0.5"
    assert child.data.params["data.uri"] == "s3://bucket/digits"
    assert child.data.metrics["certified_accuracy_by_distribution/r0.25"] == 1.0
    assert child.data.metrics["certified_accuracy_by_distribution/r1"] == 0.0
    assert len(child.data.metrics) < 25 and not any(name.endswith("_high") for name in child.data.metrics)
    assert child.data.tags["smoothcert.defence"] == "no defence"
    assert child.data.metrics["pairs"] == 8 and child.data.metrics["quarantined"] == 0.25
    (lineage,) = child.inputs.dataset_inputs
    assert lineage.dataset.digest == "d" * 36 and lineage.dataset.source_type == "s3"
    assert json.loads(lineage.dataset.source) == {"uri": "s3://bucket/digits", "format": "parquet"}
    assert json.loads(lineage.dataset.profile) == {"num_rows": 8, "digest": "d" * 64}
    artifacts = tmp_path / "runs" / "mlflow-artifacts" / result.run_id / "artifacts"
    assert Job.model_validate(yaml.safe_load((artifacts / "job.yaml").read_text())).certify == job.certify
    assert json.loads((artifacts / "summary.json").read_text()) == json.loads(summary.to_json())
    table = {
        row["figure"]: row for row in csv.DictReader((artifacts / "figures.csv").read_text().splitlines())
    }
    assert 0.0 < float(table["certified_accuracy/r1"]["high"]) < 0.5
    assert set(child.data.metrics) < set(table), "every metric is in the table too, with its interval"
    with Image.open(artifacts / "curves.png") as curves:
        assert curves.size[0] > 500


def test_nothing_is_printed_and_nothing_is_left_elsewhere(
    make_run: RunMaker,
    beside: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    url, summary, job = make_run()
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    before = {path.name for path in (tmp_path / "runs" / "a").iterdir()}
    track_run(url, summary, job, job.tracking)
    assert capfd.readouterr() == ("", "")
    assert list((tmp_path / "cwd").iterdir()) == []
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"a", "mlflow.db", "mlflow-artifacts"}
    assert {path.name for path in (tmp_path / "runs" / "a").iterdir()} == before


def test_tracking_twice_changes_nothing(make_run: RunMaker, beside: str) -> None:
    url, summary, job = make_run()
    first = track_run(url, summary, job, job.tracking)
    tables = ("runs", "metrics", "params", "tags", "inputs", "datasets", "experiments")
    before = {table: count(beside, table) for table in tables}
    second = track_run(url, summary, job, job.tracking)
    assert (second.run_id, second.parent_run_id) == (first.run_id, first.parent_run_id)
    assert first.created and not second.created
    assert {table: count(beside, table) for table in tables} == before


def test_a_resumed_run_updates_its_figures(make_run: RunMaker, beside: str) -> None:
    url, half, job = make_run(units=1)
    result = track_run(url, half, job, job.tracking)
    with quiet_mlflow():
        assert client(beside).get_run(result.run_id).info.status == "RUNNING"
    url, whole, _ = make_run(units=2)
    # the resume ran elsewhere: MLflow's parameters cannot change, the document can
    moved = job.model_copy(update={"executor": job.executor.model_copy(update={"kind": "ray"})})
    again = track_run(url, whole, moved, job.tracking)
    with quiet_mlflow():
        run = client(beside).get_run(again.run_id)
        history = client(beside).get_metric_history(again.run_id, "pairs")
        documents = client(beside).download_artifacts(again.run_id, "job.yaml")
    assert again.run_id == result.run_id and run.info.status == "FINISHED"
    assert run.data.metrics["pairs"] == 8 and [entry.value for entry in history] == [4, 8]
    assert yaml.safe_load(Path(documents).read_text())["executor"]["kind"] == "ray"
    assert run.data.params["executor.kind"] == "local"


def test_runs_of_one_job_meet_under_one_parent(make_run: RunMaker, beside: str) -> None:
    results = [track_run(*make_run(name, JOB.replace("sigma: 0.5", f"sigma: {sigma}")), TrackingSection())
               for name, sigma in (("a", 0.25), ("b", 0.5))]  # fmt: skip
    assert len({result.run_id for result in results}) == 2
    assert len({result.parent_run_id for result in results}) == 1
    other = track_run(*make_run("c", JOB.replace("name: sample", "name: other")), TrackingSection())
    assert other.parent_run_id != results[0].parent_run_id and other.experiment_id == results[0].experiment_id


def test_how_a_study_stands_is_not_told_by_one_of_its_runs(
    make_run: RunMaker, beside: str, tmp_path: Path
) -> None:
    """MLflow was away while the study's runs ended, so that none of them is there as one of a study."""
    url, summary, job = make_run()
    mark_study(str(tmp_path / "runs/sample.study"), job, "FAILED")
    result = track_run(url, summary, job)
    with quiet_mlflow():
        child = client(beside).get_run(result.run_id)
        parent = client(beside).get_run(result.parent_run_id)
    assert result.created and child.info.status == "FINISHED" and summary.finished
    assert parent.info.status == "FAILED", "what is wrong with other runs stays wrong"
    assert parent.data.tags["smoothcert.study_url"] == str(tmp_path / "runs/sample.study")


def test_a_deleted_experiment_is_refused_with_the_remedy(make_run: RunMaker, beside: str) -> None:
    url, summary, job = make_run()
    result = track_run(url, summary, job, job.tracking)
    with quiet_mlflow():
        client(beside).delete_experiment(result.experiment_id)
    with pytest.raises(TrackingError, match="deleted") as caught:
        track_run(url, summary, job, job.tracking)
    assert f"restore --experiment-id {result.experiment_id}" in caught.value.remedy


def test_a_run_that_was_deleted_is_tracked_anew(make_run: RunMaker, beside: str) -> None:
    url, summary, job = make_run()
    first = track_run(url, summary, job, job.tracking)
    with quiet_mlflow():
        client(beside).delete_run(first.run_id)
    second = track_run(url, summary, job, job.tracking)
    assert second.created and second.run_id != first.run_id


def test_a_database_that_is_none_is_an_error_and_left_alone(
    make_run: RunMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    url, summary, job = make_run()
    (tmp_path / "runs/mlflow.db").write_text("not a database")
    with pytest.raises(TrackingError, match="file is not a database") as caught:
        track_run(url, summary, job, job.tracking)
    assert "smoothcert track" in caught.value.remedy
    assert (tmp_path / "runs/mlflow.db").read_text() == "not a database"


def test_two_drivers_that_start_together_make_one_whole_database(
    tmp_path: Path, fork: Callable[..., Any]
) -> None:
    """New, in a folder whose name a URI would cut."""
    database = tmp_path / "a?b%20#c" / "mlflow.db"
    ready = multiprocessing.get_context("fork").Barrier(2)

    def ensure() -> None:
        with quiet_mlflow():
            ready.wait(60)
            ensure_database(database, "file:///nowhere")

    with quiet_mlflow():
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  # once for both
    processes = [fork(ensure) for _ in range(2)]
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["a?b%20#c"]
    assert [path.name for path in database.parent.iterdir()] == ["mlflow.db"]
    with quiet_mlflow():
        assert client(sqlite_uri(database)).get_experiment("0").name == "Default"
    assert count(f"sqlite:///{database}", "alembic_version") == 1
    assert count(f"sqlite:///{database}", "runs") == 0


def test_what_summary_and_metrics_say_is_what_the_rows_say(make_run: RunMaker, beside: str) -> None:
    url, summary, job = make_run(radius=1.0)
    assert isinstance(summary, Summary)
    result = track_run(url, summary, job, job.tracking)
    with quiet_mlflow():
        metrics = client(beside).get_run(result.run_id).data.metrics
    assert metrics["certified_vote_accuracy/r1"] == 1.0, "a radius of exactly 1.0 holds at 1.0"
    assert metrics["certified_share_angular_0.8/r0.25"] == 1.0
    assert metrics["certified_share_angular_0.8/r1"] == 0.0
    assert metrics["certified_share_angular_0.5/r1"] == 1.0
    assert "certified_cosine_fcsb/r1" not in metrics
