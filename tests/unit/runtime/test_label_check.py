"""Labels that no class has: told before the work, in the run's log and in its summary, and never counted as wrong."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from smoothcert.cli.main import app
from smoothcert.datasets import load_digits_pairs
from smoothcert.errors import SourceError
from smoothcert.job import parse_job
from smoothcert.runtime.driver import Driver

JOB = """
name: labels
data: {{format: parquet, uri: "{uri}"}}
encoder: {{model: "bundled:digits-clip", threads: 1}}
certify: {{sigma: 0.25, max_draws: 20, radii: [0.1]}}
zero_shot: {{labels: [zero, one, two, three, four, five, six, seven, eight, nine]}}
output: {{runs: "{runs}"}}
tracking: {{enabled: false}}
"""


def png(image: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def job_of(folder: Path, labels: Any, name: str = "label") -> Path:
    pairs = [pair for pair, _ in zip(load_digits_pairs("test"), range(6), strict=False)]
    table = {"image": [png(image) for image, _, _ in pairs], "caption": [caption for _, caption, _ in pairs]}
    pq.write_table(pa.table({**table, name: labels([label for _, _, label in pairs])}), folder / "a.parquet")
    path = folder / "job.yaml"
    path.write_text(JOB.format(uri=folder / "a.parquet", runs=folder / "runs"))
    return path


@pytest.mark.parametrize(
    "labels, said",
    [
        (lambda true: [label.capitalize() for label in true], "did you mean"),
        (lambda true: list(range(len(true))), "data.class_names"),
        (lambda true: [None] * len(true), "no pair has a label"),
    ],
)
def test_no_known_label_is_an_error_before_any_work(tmp_path: Path, labels: Any, said: str) -> None:
    driver = Driver(parse_job(job_of(tmp_path, labels).read_text()))
    with pytest.raises(SourceError) as caught:
        _ = driver.plan
    assert said in str(caught.value) and "data.columns.label" in str(caught.value)


def test_a_forgotten_column_is_an_error_and_null_says_that_there_is_none(tmp_path: Path) -> None:
    path = job_of(tmp_path, lambda true: true, name="digit")
    with pytest.raises(SourceError, match="no pair has a label(.|\n)*to null to certify predictions"):
        _ = Driver(parse_job(path.read_text())).plan
    assert Driver(parse_job(path.read_text(), ["data.columns.label=null"])).plan.labels is None
    labels = Driver(parse_job(path.read_text(), ["data.columns.label=digit"])).plan.labels
    assert labels is not None and labels.known == 6


def test_some_unknown_is_a_warning_in_plan_run_and_summary(tmp_path: Path) -> None:
    path = job_of(tmp_path, lambda true: ["Face", "Face", None, *true[3:]])
    (tmp_path / "data").mkdir()
    (tmp_path / "a.parquet").rename(tmp_path / "data/a.parquet")
    (tmp_path / "data/notes.txt").write_text("x")
    options = ["--set", f"data.uri={tmp_path}/data"]
    shown = CliRunner().invoke(app, ["plan", str(path), "--no-probe", *options])
    assert shown.exit_code == 0
    assert "labels     3 with a class of the job, 2 unknown, 1 missing; unknown: 'Face'" in shown.output
    assert "left out   1 file: its name does not end in .parquet or .pq" in shown.output
    assert "notes.txt" in shown.output
    shown = CliRunner().invoke(app, ["certify", str(path), *options])
    assert shown.exit_code == 0
    assert "2 unknown, 1 missing" in shown.output and "notes.txt" in shown.output
    assert "warning: 2 pairs have a label that zero_shot.labels does not name" in " ".join(
        shown.output.split()
    )
    (run,) = (tmp_path / "runs").iterdir()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["unknown_labels"] == 2 and summary["metrics"]["clean_accuracy"]["of"] == 3
    events = "".join(file.read_text() for file in run.rglob("*.jsonl"))
    assert "2 unknown" in events
    about = json.loads((run / "plan/data.json").read_text())
    assert "every byte" in about["covers"] and about["labels"]["unknown"] == 2
    assert about["left_out"][0]["examples"] == [f"{tmp_path}/data/notes.txt"]
