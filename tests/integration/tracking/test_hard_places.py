"""Runs at places, and with data, that MLflow has no room for: tracked all the same, and nothing lands elsewhere."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from smoothcert.tracking import track_run
from smoothcert.tracking.destination import sqlite_uri
from smoothcert.tracking.quiet import quiet_mlflow

from .conftest import JOB, RunMaker

FOLDERS = ["what?", "50%/a%20b/#1/a?x=y#z/a:b/a;b&c=d"]


def client(uri: str) -> Any:
    with quiet_mlflow():
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=uri)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_run_below_any_folder_is_tracked_beside_it(
    folder: str, make_run: RunMaker, migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    url, summary, job = make_run(f"{folder}/run")
    runs = tmp_path / "runs" / folder
    shutil.copy(migrated, runs / "mlflow.db")
    result = track_run(url, summary, job, job.tracking)
    with quiet_mlflow():
        child = client(sqlite_uri(runs / "mlflow.db")).get_run(result.run_id)
    assert child.data.tags["smoothcert.run_id"] == summary.run_id
    assert {path.name for path in runs.iterdir()} == {"run", "mlflow.db", "mlflow-artifacts"}
    assert (runs / "mlflow-artifacts" / result.run_id / "artifacts/job.yaml").is_file()
    # neither a file nor a folder under half of the name, or under its spelling in a URI
    for place in (runs, *runs.parents[: len(Path(folder).parts)]):
        assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_a_job_of_a_thousand_shards_and_many_radii_is_tracked(make_run: RunMaker, beside: str) -> None:
    data = yaml.safe_load(JOB)
    shards = [
        f"s3://bucket/a/long/prefix/of/{'shards' * 6}/part-{number:05d}.parquet" for number in range(1100)
    ]
    data["data"]["uri"] = shards
    data["certify"]["radii"] = [round(0.01 * number, 2) for number in range(1, 120)]
    data["certify"]["targets"] = []
    url, summary, job = make_run("a", yaml.safe_dump(data))
    result = track_run(url, summary, job, job.tracking)
    with quiet_mlflow():
        child = client(beside).get_run(result.run_id)
        document = client(beside).download_artifacts(result.run_id, "job.yaml")
    (lineage,) = child.inputs.dataset_inputs
    source = json.loads(lineage.dataset.source)
    assert source["uris"] == 1100 and source["uri"] == shards[: len(source["uri"])] != []
    assert (
        "1100 characters" not in child.data.params["data.uri"] and "sha256" in child.data.params["data.uri"]
    )
    assert yaml.safe_load(Path(document).read_text())["data"]["uri"] == shards, "the whole list"
    note = child.data.tags["mlflow.note.content"]
    assert "more radii are in summary.json" in note
    again = track_run(url, summary, job, job.tracking)
    assert again.run_id == result.run_id and not again.created
