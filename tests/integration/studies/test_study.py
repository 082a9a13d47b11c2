"""A finished study: ordinary runs, one leaderboard, one parent in MLflow, which knows how it ended."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from smoothcert.audit.audit import audit_run
from smoothcert.audit.kept import keep_audit, kept_audit
from smoothcert.cli.main import app
from smoothcert.cli.running import StopSignals
from smoothcert.cli.study import run_study
from smoothcert.cli.study_tracking import StudyTracking
from smoothcert.cli.terminal import Terminal
from smoothcert.datasets import write_demo_data
from smoothcert.errors import StoreError, TrackingError
from smoothcert.job import load_study
from smoothcert.sql import open_query
from smoothcert.store import RunDirectory
from smoothcert.studies.driving import StudyDriver, StudyReport
from smoothcert.studies.leaderboard import Leaderboard, make_leaderboard
from smoothcert.studies.record import StudyRecord, StudyRun, read_record
from smoothcert.summary.summary import summarise
from smoothcert.tracking.quiet import quiet_mlflow
from smoothcert.tracking.study import mark_study

PAIRS = 6
STUDY = """
name: mini
data: {{format: parquet, uri: "{here}/digits", limit: {pairs}}}
encoder: {{model: "bundled:digits-clip", slots: 4, chunk: 8, threads: 1}}
certify: {{sigma: 0.25, alpha: 0.05, pilot_draws: 7, max_draws: 24, radii: [0.02, 0.0625], cosines: [0.5]}}
zero_shot:
  labels: [zero, one, two, three, four, five, six, seven, eight, nine]
  prompts: ["a photo of the digit {{label}}"]
attacks:
  - {{attack: pgd, norm: l2, budgets: [1.0], objective: classification, steps: 2, eot_draws: 2, evaluate_draws: 8}}
executor: {{pairs_per_unit: 3}}
output: {{runs: "{here}/runs"}}
study:
  variants:
    smoothing:
    dimmed: {{encoder.purifier: "parts:dim"}}
  baseline: smoothing
"""
PARTS = """
import torch

class Dim(torch.nn.Module):
    def forward(self, pixels):
        return 0.9 * pixels

def dim(encoder):
    return Dim()
"""


def write_study(here: Path, text: str = STUDY, pairs: int = PAIRS) -> Path:
    write_demo_data(here / "digits", "parquet")
    (here / "parts.py").write_text(PARTS)
    (here / "study.yaml").write_text(text.format(here=here, pairs=pairs))
    return here / "study.yaml"


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        app([str(each) for each in arguments])
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Iterator[Path]:
    """A study whose tracking store went away behind its first run; the same command logged what was missing."""
    here = tmp_path_factory.mktemp("study")
    (here / "runs").mkdir()
    shutil.copy(migrated, here / "runs" / "mlflow.db")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    uri = os.environ.pop("MLFLOW_TRACKING_URI", None)
    file = write_study(here)
    keep, holders = StudyTracking.keep_run, []

    def keep_and_lose(self: StudyTracking, *told: Any) -> None:
        keep(self, *told)
        if not holders:  # somebody else has the database now
            holders.append(sqlite3.connect(here / "runs/mlflow.db", isolation_level=None))
            holders[0].execute("BEGIN EXCLUSIVE")

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as first:
        patch.setattr(StudyTracking, "keep_run", keep_and_lose)
        assert run("study", file) == 0, "nothing that was computed is lost"
    holders[0].close()
    (here / "first.log").write_text(first.getvalue())
    found = [f"{each.info.run_name} {each.info.status}" for each in mlflow_runs(here)]
    (here / "first.runs").write_text("\n".join(sorted(found)))
    with contextlib.redirect_stderr(io.StringIO()) as second:
        assert run("study", file) == 0
    (here / "second.log").write_text(second.getvalue())
    yield here
    if uri is not None:
        os.environ["MLFLOW_TRACKING_URI"] = uri
    for number, handler in handlers.items():
        signal.signal(number, handler)


def mlflow_runs(here: Path) -> list[Any]:
    with quiet_mlflow():
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=f"sqlite:///{here}/runs/mlflow.db")
        return list(client.search_runs([each.experiment_id for each in client.search_experiments()]))


def test_a_store_that_goes_away_is_said_once_and_gets_the_rest_later(done: Path) -> None:
    first, second = ((done / f"{name}.log").read_text() for name in ("first", "second"))
    assert first.count("not tracked: ") == 1 and "to log it later: run the same command again" in first
    assert (done / "first.runs").read_text() == "mini RUNNING\nsmoothing FINISHED", (
        "one run does not end a study"
    )
    assert "2 of 2 runs are complete already" in second and "not tracked" not in second
    # what is there at last: test_mlflow_reads_as_an_experiment


def test_every_combination_is_a_run_of_its_own(done: Path) -> None:
    record = read_record(str(done / "runs/mini.study"))
    assert record is not None and [each.label for each in record.runs] == ["smoothing", "dimmed"]
    assert {each.state for each in record.runs} == {"complete"}
    with open_query([done / "runs"]) as query:
        counts = query.sql("SELECT run_id, count(*) AS n FROM certificates GROUP BY 1").to_pylist()
        attacks = query.sql("SELECT run_id, count(*) AS n FROM attacks GROUP BY 1").to_pylist()
    assert [row["n"] for row in counts] == [PAIRS] * 2 and [row["n"] for row in attacks] == [2 * PAIRS] * 2
    for each in record.runs:
        assert json.loads((Path(each.url) / "audit.json").read_text())["findings"] == []


def test_the_leaderboard_is_what_the_rows_say(done: Path) -> None:
    lines = list(csv.DictReader((done / "runs/mini.study/leaderboard.csv").read_text().splitlines()))
    record = read_record(str(done / "runs/mini.study"))
    assert record is not None
    runs = record.open_runs()

    def value(label: str, figure: str, **at: str) -> dict[str, str]:
        found = [
            line
            for line in lines
            if (line["label"], line["figure"]) == (label, figure) and all(line[k] == v for k, v in at.items())
        ]
        assert len(found) == 1, found
        return found[0]

    for label, opened in runs.items():
        with open_query([opened.url]) as query:
            rows = query.sql("SELECT * FROM certificates ORDER BY pair_id").to_pylist()
            outcomes = query.sql("SELECT * FROM attacks").to_pylist()
        right = [row["predicted_label"] == row["label"] for row in rows]
        certified = [
            hit and (row["certified_radius"] or 0) >= 0.02 for hit, row in zip(right, rows, strict=True)
        ]
        assert float(value(label, "accuracy", subject="smoothed")["value"]) == pytest.approx(
            sum(right) / PAIRS
        )
        found = value(label, "certified_accuracy", certificate="class", radius="0.02")
        assert float(found["value"]) == pytest.approx(sum(certified) / PAIRS)
        cosine = value(label, "certified_cosine", certificate="angular", radius="0.0625")
        assert float(cosine["value"]) == pytest.approx(sum(row["angular"][1] or 0 for row in rows) / PAIRS)
        assert float(value(label, "draws_per_pair")["value"]) == 31
        assert float(value(label, "seconds_per_pair")["value"]) > 0
        for subject in ("bare", "smoothed"):
            mine = [row for row in outcomes if row["subject"] == subject]
            robust = sum(row["clean_margin"] >= 0 and not row["success"] for row in mine)
            told = value(label, "robust_accuracy", subject=subject)
            assert float(told["value"]) == pytest.approx(robust / PAIRS) and told["budget"] == "1.0"
    base, other = (value(each, "robust_accuracy", subject="smoothed") for each in ("smoothing", "dimmed"))
    assert base["difference"] == "" and other["baseline"] == "smoothing"
    assert float(other["difference"]) == pytest.approx(float(other["value"]) - float(base["value"]))
    assert float(other["difference_low"]) <= float(other["difference"]) <= float(other["difference_high"])


def test_the_leaderboard_command_ranks_runs_and_studies(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app(["leaderboard", str(done / "runs/mini.study"), "--csv", str(done / "out.csv")], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "smoothing (bare)" in " ".join(shown.split()) or "(bare)" in shown
    assert "Differences to 'smoothing'" in shown and "attack success l2 1" in shown
    # not the numbers: means over rows that come in another order round otherwise
    mine, kept = (
        [
            (row["label"], row["subject"], row["figure"], row["radius"])
            for row in csv.DictReader(path.read_text().splitlines())
        ]
        for path in (done / "out.csv", done / "runs/mini.study/leaderboard.csv")
    )
    assert mine == kept and len(mine) > 40
    app(["leaderboard", str(done / "runs")], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "no defence" in shown and "purifier dim" in shown, "without a study runs are called by what varies"
    assert "absent" not in shown


def test_mlflow_reads_as_an_experiment(done: Path) -> None:
    runs = {each.info.run_name: each for each in mlflow_runs(done)}
    assert set(runs) == {"mini", "smoothing", "dimmed"}
    parent = runs["mini"]
    assert {each.info.status for each in runs.values()} == {"FINISHED"}
    for label, defence in (("smoothing", "no defence"), ("dimmed", "purifier dim")):
        child = runs[label]
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.tags["smoothcert.defence"] == defence
        assert 0 <= child.data.metrics["robust_accuracy/classification_smoothed_l2_1"] <= 1
        assert parent.data.metrics[f"accuracy/{label}"] == child.data.metrics["class_accuracy"]
    assert {f"certified by {way} r 0.02/dimmed" for way in ("distribution", "vote")} <= set(
        parent.data.metrics
    )
    assert "certified by vote r 0.0625/dimmed" not in parent.data.metrics, "one radius: more cannot be read"
    assert "accuracy/dimmed -- bare" in parent.data.metrics and len(parent.data.metrics) <= 26
    note = parent.data.tags["mlflow.note.content"]
    assert f"2 runs of {PAIRS} pairs each, a column for each, against `smoothing`" in note
    assert "| certified by distribution r 0.02 |" in note and "certified r 0.02" not in note
    link = unquote(note.partition("](#/compare-runs?runs=")[2].partition("&")[0])
    assert json.loads(link) == [runs[label].info.run_id for label in ("smoothing", "dimmed")]
    kept = {
        path.name for path in (done / "runs/mlflow-artifacts" / parent.info.run_id / "artifacts").iterdir()
    }
    assert kept == {"leaderboard.md", "leaderboard.csv", "curves.png", "report.html"}


def never(*_: object, **__: object) -> None:
    raise AssertionError("this was done before")


def test_a_second_time_nothing_is_done_again(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(done, tmp_path / "copy")
    here = tmp_path / "copy"
    text = (here / "study.yaml").read_text().replace(f'runs: "{done}', f'runs: "{here}')
    (here / "study.yaml").write_text(text)  # the data stay where they were: another path is another run
    before = sorted((p, p.stat().st_mtime_ns) for p in (here / "runs").rglob("*.parquet"))
    assert run("study", here / "study.yaml") == 0
    assert sorted((p, p.stat().st_mtime_ns) for p in (here / "runs").rglob("*.parquet")) == before
    assert len(mlflow_runs(here)) == 3
    board = (here / "runs/mini.study/leaderboard.csv").read_text()
    told = capsys.readouterr()

    for place in (
        "smoothcert.studies.driving.make_leaderboard",
        "smoothcert.cli.study.run_phases",
        "smoothcert.cli.study_tracking.pages",
        "smoothcert.sql.query.Query.sql",
    ):
        monkeypatch.setattr(place, never)
    assert run("study", here / "study.yaml") == 0
    again = capsys.readouterr()
    assert "2 of 2 runs are complete already" in again.err and "MLflow: " in again.err
    assert again.out == told.out, "the leaderboard as it was"
    assert (here / "runs/mini.study/leaderboard.csv").read_text() == board


def test_a_complete_study_is_logged_where_mlflow_does_not_have_it(
    done: Path, tmp_path: Path, migrated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    away = ["--set", "tracking.uri=http://127.0.0.1:9", "--set", "tracking.report=false"]
    assert run("study", done / "study.yaml", *away) == 0
    told = capsys.readouterr().err
    assert (
        "2 of 2 runs are complete already" in told and "not tracked: " in told and "to log it later" in told
    )
    shutil.copy(migrated, tmp_path / "other.db")
    elsewhere = f"sqlite:///{tmp_path}/other.db"
    there = ["--set", f"tracking.uri={elsewhere}", "--set", "tracking.report=false"]
    assert run("study", done / "study.yaml", *there) == 0
    with quiet_mlflow():
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=elsewhere)
        experiments = [each.experiment_id for each in client.search_experiments()]
        found = {each.info.run_name: each for each in client.search_runs(experiments)}
        assert set(found) == {"mini", "smoothing", "dimmed"}
        # as after a change of code or data: a run of the same name, which is none of the study's any more
        tags = {"mlflow.parentRunId": found["mini"].info.run_id, "smoothcert.variant": "smoothing"}
        old = client.create_run(
            found["mini"].info.experiment_id,
            tags=tags | {"smoothcert.run_id": "mini-abcdef"},
            run_name="smoothing",
        )
        client.set_tag(found["mini"].info.run_id, "smoothcert.rests_on", "of before")
    assert run("study", done / "study.yaml", *there) == 0
    with quiet_mlflow():
        assert client.get_run(old.info.run_id).info.run_name == "smoothing (earlier, abcdef)"
        assert client.get_run(found["smoothing"].info.run_id).info.run_name == "smoothing"

    driver = StudyDriver(load_study(done / "study.yaml", there[1::2]))
    session = StudyTracking(driver, Terminal(stderr=True))
    cut = StudyRecord("mini", "smoothing", (StudyRun("smoothing", "", "complete"), StudyRun("dimmed", "")))
    for end, status in (
        (session.begin, "RUNNING"),
        (lambda: session.keep_study(StudyReport(cut, None, 143, stopped=True)), "KILLED"),
        (session.begin, "RUNNING"),
        (lambda: session.keep_study(StudyReport(cut, None, 4, stopped=False)), "FAILED"),
        (lambda: run("study", done / "study.yaml", *there), "FINISHED"),
    ):
        end()
        with quiet_mlflow():
            assert client.get_run(found["mini"].info.run_id).info.status == status


Elsewhere = tuple[StudyDriver, Callable[[], dict[str, Any]]]
"""A study, and what its tracking store has, by name."""


@pytest.fixture
def elsewhere(done: Path, tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    """A study that has done nothing yet in this session, tracked into a store that knows nothing of it."""
    shutil.copy(migrated, tmp_path / "other.db")
    monkeypatch.chdir(tmp_path)  # MLflow puts artifacts here
    uri = f"sqlite:///{tmp_path}/other.db"
    driver = StudyDriver(load_study(done / "study.yaml", [f"tracking.uri={uri}", "tracking.report=false"]))

    def runs() -> dict[str, Any]:
        with quiet_mlflow():
            from mlflow import MlflowClient

            client = MlflowClient(tracking_uri=uri)
            experiments = [each.experiment_id for each in client.search_experiments()]
            return {each.info.run_name: each for each in client.search_runs(experiments)}

    return driver, runs


FAULTY = "the audit found something"


@pytest.mark.parametrize(
    ("ends", "states", "status"),
    [
        (SystemExit(128 + signal.SIGINT), [], "KILLED"),  # what a second signal raises
        (KeyboardInterrupt(), [], "KILLED"),
        (StoreError("the disk is full", remedy="make room"), [], "FAILED"),
        (None, ["complete", "stopped"], "KILLED"),
        (None, ["complete", "waiting"], "KILLED"),
        (None, [FAULTY, "waiting"], "KILLED"),
        (None, ["complete", FAULTY], "FAILED"),  # the signal came when nothing was left to stop
        (None, ["complete", "complete"], "FINISHED"),
    ],
)
def test_mlflow_knows_how_a_study_ended(
    ends: BaseException | None,
    states: list[str],
    status: str,
    elsewhere: Elsewhere,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver, runs = elsewhere
    stopped_by = StopSignals(Terminal(stderr=True))
    record = StudyRecord("mini", "smoothing", tuple(StudyRun(f"r{i}", "", s) for i, s in enumerate(states)))

    def end(*_: object) -> StudyReport:
        assert runs()["mini"].info.status == "RUNNING"
        stopped_by.signal = signal.SIGTERM
        if ends is not None:
            raise ends
        return StudyReport(record, None, 0, stopped=True)

    monkeypatch.setattr(driver, "run", end)
    with contextlib.nullcontext() if ends is None else pytest.raises(type(ends)):
        assert run_study(driver, stopped_by) == 128 + signal.SIGTERM
    assert runs()["mini"].info.status == status


def test_an_error_behind_the_last_run_ends_a_study_in_mlflow_too(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, runs = elsewhere
    report = StudyReport(StudyRecord("mini", "smoothing", ()), Leaderboard((), "smoothing"), 0, stopped=False)
    monkeypatch.setattr(driver, "run", lambda *_: report)
    breaks = BrokenPipeError("as in: smoothcert study FILE | head -1")

    def break_off(*_: object) -> None:
        raise breaks

    monkeypatch.setattr("smoothcert.cli.show_leaderboard.print_leaderboard", break_off)
    with pytest.raises(BrokenPipeError):
        run_study(driver, StopSignals(Terminal(stderr=True)))
    assert runs()["mini"].info.status == "FAILED"
    # one that had nothing to do stays what it was
    mark_study(driver.url, driver.study.combinations[0].job, "FINISHED")
    driver.record = StudyRecord(
        "mini", "smoothing", tuple(StudyRun(each.label, "", "complete") for each in driver.study.combinations)
    )
    with pytest.raises(BrokenPipeError):
        run_study(driver, StopSignals(Terminal(stderr=True)))
    assert runs()["mini"].info.status == "FINISHED"


def test_who_quits_does_not_wait_for_mlflow(elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    session = StudyTracking(elsewhere[0], Terminal(stderr=True))
    session.begin()
    answers, asked = threading.Event(), []

    def say_nothing(url: str, job: object, status: str) -> None:
        asked.append(status)
        answers.wait(60)

    monkeypatch.setattr("smoothcert.tracking.study.mark_study", say_nothing)
    started = time.monotonic()
    session.cut_short(SystemExit(130))
    took = time.monotonic() - started
    answers.set()
    assert asked == ["KILLED"] and took < 30


def test_a_store_that_is_away_when_a_study_begins_has_its_runs_all_the_same(
    done: Path,
    elsewhere: Elsewhere,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    driver, runs = elsewhere
    session = StudyTracking(driver, Terminal(stderr=True))

    def be_away(*_: object) -> None:
        raise TrackingError("MLflow is away", remedy="wait")

    with monkeypatch.context() as patch:
        patch.setattr("smoothcert.tracking.study.mark_study", be_away)
        session.begin()
    assert "not tracked yet: MLflow is away" in capsys.readouterr().err
    record = read_record(str(done / "runs/mini.study"))
    assert record is not None
    ended = record.open_runs()["smoothing"]
    with open_query([ended.url]) as query:
        session.keep_run(ended, driver.study.of("smoothing").job, "smoothing", summarise(ended.url), query)
    found = runs()
    assert {name: each.info.status for name, each in found.items()} == {
        "mini": "RUNNING",
        "smoothing": "FINISHED",
    }
    assert found["mini"].data.tags["smoothcert.study_url"] == driver.url
    assert "not tracked" not in capsys.readouterr().err


def test_what_is_no_longer_as_it_was_is_looked_at_again(done: Path) -> None:
    def complete(*overrides: str) -> list[bool]:
        driver = StudyDriver(load_study(done / "study.yaml", overrides))
        driver.check()
        return [each.state == "complete" for each in driver.record.runs]

    record = (done / "runs/mini.study/study.json").read_text()
    assert complete() == [True, True]
    assert complete("output.quarantine_budget=0.5") == [False, False]
    (done / "runs/mini.study/study.json").write_text(record)
    assert complete("attacks.0.steps=3") == [False, False], "another attack is left"
    (done / "runs/mini.study/study.json").write_text(record[:-40])
    assert complete() == [False, False], "a record cut short"
    (done / "runs/mini.study/study.json").write_text(record)


def test_an_audit_is_kept_with_what_it_rests_on(done: Path, tmp_path: Path) -> None:
    record = read_record(str(done / "runs/mini.study"))
    assert record is not None
    (run_directory, *_) = record.open_runs().values()
    assert kept_audit(run_directory) == audit_run(run_directory)
    shutil.copytree(run_directory.url, tmp_path / "copy")
    copy = RunDirectory.open(str(tmp_path / "copy"))
    assert kept_audit(copy) is None, "it is about another directory"
    keep_audit(copy)
    assert kept_audit(copy) is not None
    file = tmp_path / "copy" / "audit.json"
    whole = file.read_text()
    for broken in (whole[: len(whole) // 2], whole.replace('"rests_on": "', '"rests_on": "0'), "[]"):
        file.write_text(broken)
        assert kept_audit(copy) is None
    file.write_text(whole)
    commit = min((tmp_path / "copy" / "commits").glob("*.json"))
    commit.unlink()
    assert kept_audit(copy) is None, "a unit is no longer committed"


def test_runs_of_other_grids_are_ranked_where_they_share_figures(done: Path) -> None:
    record = read_record(str(done / "runs/mini.study"))
    assert record is not None
    board = make_leaderboard(record.open_runs(), "dimmed")
    compared = [line for line in board.lines if line.difference is not None]
    assert {line.label for line in compared} == {"smoothing"}
