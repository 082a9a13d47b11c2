"""``smoothcert train`` as a user meets it: a trained defence that certifies, in MLflow, resumed, and mistaken."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smoothcert.cli.training_progress import TrainingProgress
from smoothcert.datasets import write_demo_data
from smoothcert.defences import read_part
from smoothcert.tracking.quiet import quiet_mlflow

JOB = """
name: mini
data: {{format: parquet, uri: "{data}", limit: 60}}
encoder: {{model: "bundled:digits-clip", device: cpu, threads: 1}}
certify: {{sigma: 0.25, alpha: 0.01, pilot_draws: 15, max_draws: 32}}
output: {{runs: "{runs}"}}
train: {{out: "{out}", steps: {steps}, batch: 8, validate_every: 2, purifier: {{channels: [8], patch: 4}}}}
"""
Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("digits")
    write_demo_data(where, "parquet", split="train")
    return where


@pytest.fixture
def job(digits: Path, tmp_path: Path, migrated: Path) -> Path:
    path = tmp_path / "mini.yaml"
    (tmp_path / "runs").mkdir()
    shutil.copy(migrated, tmp_path / "runs" / "mlflow.db")
    path.write_text(JOB.format(data=digits, runs=tmp_path / "runs", out=tmp_path / "psm", steps=4))
    return path


@pytest.fixture
def run(smoothcert: Callable[..., tuple[int, str, str]]) -> Run:
    def call(*arguments: object) -> tuple[int, str]:
        code, out, err = smoothcert(*arguments)
        return code, out + err

    return call


def tracked(runs: Path) -> Any:
    with quiet_mlflow():
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=f"sqlite:///{runs}/mlflow.db")
        experiment = client.get_experiment_by_name("smoothcert")
        return client, client.search_runs([experiment.experiment_id], "tags.`smoothcert.role` = 'training'")


def test_a_defence_is_trained_tracked_and_certified(job: Path, run: Run, tmp_path: Path) -> None:
    code, said = run("train", job)
    assert code == 0, said
    assert (
        "the weights of step" in said
        and "smooth norm" in said
        and "MLflow: mlflow ui --backend-store-uri" in said
    )
    client, (found,) = tracked(tmp_path / "runs")
    assert found.info.status == "FINISHED" and found.info.run_name == "train psm, mini"
    with quiet_mlflow():
        history = client.get_metric_history(found.info.run_id, "purifier/loss")
        files = {each.path for each in client.list_artifacts(found.info.run_id)}
    assert [point.step for point in history] == [2, 4]
    wanted = {
        "purifier/denoising",
        "mapper/held_out_cosine",
        "mapper/robustness_score_s0.25",
        "mapper/smooth_norm_s0.25",
    }
    assert wanted <= set(found.data.metrics)
    assert {"README.md", "scores.json", "job.yaml"} <= files
    psm = tmp_path / "psm"
    code, said = run(
        "certify", job, "--set", f"encoder.purifier={psm}", "--set", f"encoder.mapper={psm}",
        "--set", "train=null", "--set", "data.limit=6", "--set", "tracking.enabled=false",
    )  # fmt: skip
    assert code == 0 and "6 of 6 pairs certified" in said, said
    assert "was trained for" not in said
    code, said = run(
        "certify", job, "--set", f"encoder.purifier={psm}", "--set", "train=null", "--set", "data.limit=2",
        "--set", "certify.sigma=0.5", "--set", "tracking.enabled=false",
    )  # fmt: skip
    assert code == 0
    assert (
        "warning: defence 'purifier psm': its purifier was trained for sigma 0.25 and is used at 0.5" in said
    )
    kept = [json.loads(path.read_text())["notes"] for path in (tmp_path / "runs").glob("*/summary.json")]
    assert sorted(map(len, kept)) == [0, 1] and "used at 0.5" in max(kept)[0]


def test_training_again_after_the_end_trains_nothing(job: Path, run: Run, tmp_path: Path) -> None:
    assert run("train", job)[0] == 0
    before = read_part(str(tmp_path / "psm"), "mapper").digest
    code, said = run("train", job)
    assert code == 0 and "goes on at step 4 of 4" in said
    assert read_part(str(tmp_path / "psm"), "mapper").digest == before
    assert len(tracked(tmp_path / "runs")[1]) == 1


def test_a_signal_stops_after_a_step_and_the_same_command_goes_on(
    job: Path, run: Run, forked: Callable[..., Any], tmp_path: Path
) -> None:
    settings = ("--set", "train.steps=60", "--set", "tracking.enabled=false")
    process = forked("train", job, *settings)
    process.wait_for((tmp_path / "psm" / "checkpoint-purifier.safetensors").exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143 and "run the same command again to resume" in process.err, process.err
    code, said = run("train", job, *settings)
    assert code == 0 and "goes on at step" in said and "goes on at step 0" not in said, said


def test_a_tracking_server_that_is_away_costs_nothing_but_a_line(job: Path, run: Run) -> None:
    code, said = run("train", job, "--set", "tracking.uri=http://127.0.0.1:9")
    assert code == 0 and said.count("not tracked yet: ") == said.count("not tracked: ") == 1, said


def test_what_a_tracking_store_missed_is_logged_when_it_is_back(
    job: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process holds the database from the first validation to the last."""
    assert run("train", job, "--set", f"train.out={tmp_path / 'undisturbed'}")[0] == 0
    validated, end, holders = TrainingProgress.validated, TrainingProgress.end, []

    def hold(progress: TrainingProgress, *told: Any) -> None:
        if not holders:
            holders.append(sqlite3.connect(tmp_path / "runs/mlflow.db", isolation_level=None))
            holders[0].execute("BEGIN EXCLUSIVE")
        validated(progress, *told)

    def release(progress: TrainingProgress, stage: str, *told: Any) -> None:
        if stage == "mapper":
            holders[0].close()
        end(progress, stage, *told)

    monkeypatch.setattr(TrainingProgress, "validated", hold)
    monkeypatch.setattr(TrainingProgress, "end", release)
    code, said = run("train", job)
    assert code == 0 and said.count("not tracked yet: ") == 1 and "not tracked: " not in said, said
    client, runs = tracked(tmp_path / "runs")
    histories = [
        {
            (name, each.step): each.value
            for name in one.data.metrics
            for each in client.get_metric_history(one.info.run_id, name)
        }
        for one in runs
    ]
    assert len(histories) == 2 and histories[0] == histories[1] and len(histories[0]) > 20
    assert {one.info.status for one in runs} == {"FINISHED"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["train=null"], "the job has no 'train' section"),
        (["train.sigma=[0.5, 0.25]"], "must be [smallest, largest]"),
        (["train.method=tecoa"], "needs the section 'zero_shot'"),
        (["train.method=boost"], "train.method"),
        (["train.out="], "train.out"),
        (["data.limit=9"], "are too few"),
        (["encoder.mapper=bundled:digits-psm"], "encoder.mapper is given"),
        (["train.mapper.groups=5"], "train.mapper"),
    ],
)
def test_mistakes_are_told_before_training(
    job: Path, run: Run, tmp_path: Path, settings: list[str], said: str
) -> None:
    code, text = run("train", job, *(word for each in settings for word in ("--set", each)))
    assert code == 2 and said in text, text
    assert not (tmp_path / "psm").exists()
