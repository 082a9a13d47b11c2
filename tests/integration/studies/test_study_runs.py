"""Studies on their way: trainings first, runs that fail, are stopped or killed, and errors that help."""

from __future__ import annotations

import os
import runpy
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smoothcert.cli.main import app
from smoothcert.errors import JobError, StoreError
from smoothcert.job import load_study
from smoothcert.runtime.driver import Driver
from smoothcert.sql import open_query
from smoothcert.studies.driving import Encoders, StudyDriver
from smoothcert.studies.record import read_record
from smoothcert.tracking.destination import Destination
from smoothcert.tracking.track import translated

_STUDY = runpy.run_path(str(Path(__file__).with_name("test_study.py")))
PAIRS, STUDY = _STUDY["PAIRS"], _STUDY["STUDY"]
write_study, run = _STUDY["write_study"], _STUDY["run"]

TUNING = """
name: tuned
data: {{format: parquet, uri: "{here}/digits", limit: 24}}
encoder: {{model: "bundled:digits-clip", threads: 1}}
tracking: {{enabled: false}}
certify: {{sigma: 0.25}}
train: {{method: noise, out: "{here}/tuned", sigma: 0.25, steps: 2, batch: 8, validate_every: 2}}
"""


def write_again(file: Path, old: str, new: str) -> Path:
    file.write_text(file.read_text().replace(old, new))
    return file


def test_a_part_that_depends_on_sigma_is_made_anew_for_each(tmp_path: Path) -> None:
    text = STUDY.split("attacks:")[0]
    text += (
        "study: {{grid: {{certify.sigma: [0.25, 0.5], encoder.purifier: ['bundled:digits-psm', null]}}}}\n"
    )
    study = load_study(write_study(tmp_path, text))
    encoders = Encoders()
    drivers = [encoders.driver(each) for each in study.combinations]
    alone = [Driver(each.job).encoder for each in study.combinations]
    assert [each.encoder.digest for each in drivers] == [each.digest for each in alone]
    assert len({each.digest for each in alone}) == 3, "two purified ones, and one without"


def test_a_study_trains_what_its_combinations_name_once(
    tmp_path: Path,
    forked: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed between the training and the first run, and with MLflow away from the start."""
    text = STUDY.split("attacks:")[0] + "tracking: {{uri: 'http://127.0.0.1:9', report: false}}\n"
    text += "output: {{runs: '{here}/runs'}}\n"
    text += "study:\n  train: [{{job: tuning.yaml, settings: {{train.steps: 3}}}}]\n"
    text += "  variants: {{as it is: , tuned: {{encoder.model: '{here}/tuned/model'}}}}\n"
    file = write_study(tmp_path, text, pairs=2)
    (tmp_path / "tuning.yaml").write_text(TUNING.format(here=tmp_path))

    def die_before_the_runs() -> None:
        StudyDriver.check = lambda study: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore

    first = forked("study", file, first=die_before_the_runs)
    assert first.wait() == -signal.SIGKILL and "noise: 3 steps" in first.err, first.err
    trained = {path: path.stat().st_mtime_ns for path in (tmp_path / "tuned").rglob("*") if path.is_file()}
    assert trained and not (tmp_path / "runs").exists()

    asked: list[str] = []

    def count(to: Destination, later: str) -> Any:
        asked.append(to.uri)
        return translated(to, later)

    monkeypatch.setattr("smoothcert.tracking.track.translated", count)
    assert run("study", file) == 0
    told = capsys.readouterr().err
    assert "noise" not in told and told.count("not tracked: ") == told.count("not tracked yet: ") == 1
    assert len(asked) == 2, "at the beginning and when the first run ended, but not for every run"
    assert {path: path.stat().st_mtime_ns for path in trained} == trained, "not trained again"
    record = read_record(str(tmp_path / "runs/mini.study"))
    assert record is not None and {each.state for each in record.runs} == {"complete"}
    digests = {each.info.encoder_digest for each in record.open_runs().values()}
    assert len(digests) == 2, "one of the runs has the model that was trained"
    with pytest.raises(
        JobError, match=r"study.train.0: train.out='.*tuned' holds a training with other settings"
    ):
        app(["study", str(write_again(file, "train.steps: 3", "train.steps: 4"))], standalone_mode=False)


def test_a_run_that_fails_leaves_the_others_whole(tmp_path: Path) -> None:
    write_study(tmp_path, STUDY.replace("attacks:", "tracking: {{enabled: false}}\nattacks:"))
    driver = StudyDriver(load_study(tmp_path / "study.yaml"))
    driver.check()
    told: list[str] = []

    def perform(run: Any, combination: Any) -> int:
        from smoothcert.runtime.executor import Monitor

        if combination.label == "smoothing":
            raise StoreError("the disk is full", remedy="make room")
        return int(run.work("certification", Monitor(lambda result: None)).missing != 0)

    report = driver.run(perform, lambda: False, lambda combination, error: told.append(error.message))
    assert told == ["the disk is full"] and report.code == 3
    assert [each.state for each in report.record.runs] == ["the disk is full", "complete"]
    assert report.board is not None and report.board.baseline == "dimmed", "the baseline has no run yet"


def test_a_run_that_a_signal_stopped_is_told_from_one_that_has_not_begun(tmp_path: Path) -> None:
    write_study(tmp_path, STUDY.replace("attacks:", "tracking: {{enabled: false}}\nattacks:"))
    driver = StudyDriver(load_study(tmp_path / "study.yaml"))
    driver.check()
    signals: list[int] = []

    def perform(run: Any, combination: Any) -> int:
        signals.append(signal.SIGTERM)
        return 128 + signal.SIGTERM

    report = driver.run(perform, lambda: bool(signals), lambda combination, error: None)
    assert report.stopped and report.code == 0
    assert [each.state for each in report.record.runs] == ["stopped", "waiting"]
    kept = read_record(str(tmp_path / "runs/mini.study"))
    assert kept is not None and kept.runs == report.record.runs
    driver.check()
    assert {each.state for each in driver.record.runs} == {"waiting"}, "both are to be done"


def test_what_cannot_be_done_is_known_before_anything_begins(tmp_path: Path) -> None:
    file = write_study(tmp_path, STUDY.replace('"parts:dim"', '"parts:nothing"'))
    with pytest.raises(Exception, match="with dimmed: .*nothing") as caught:
        StudyDriver(load_study(file)).check()
    assert caught.type.__name__ == "EncoderError"
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_goes_on(tmp_path: Path, forked: Callable[..., Any]) -> None:
    file = write_study(
        tmp_path,
        STUDY.replace("attacks:", "tracking: {{enabled: false}}\nattacks:").replace(
            "max_draws: 24", "max_draws: 400"
        ),
    )
    process = forked("study", file)
    # the fifth is in the second run; on Ray, in both: cluster/test_study.py
    process.wait_for(lambda: len(list((tmp_path / "runs").glob("*/commits/*"))) >= 5)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/commits/*.json")}
    assert kept
    assert run("study", file) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "what was committed is not done again"
    with open_query([tmp_path / "runs"]) as query:
        found = query.sql(
            "SELECT run_id, count(*) AS n, count(DISTINCT pair_id) AS d FROM certificates GROUP BY 1"
        )
    assert [(row["n"], row["d"]) for row in found.to_pylist()] == [(PAIRS, PAIRS)] * 2
    record = read_record(str(tmp_path / "runs/mini.study"))
    assert record is not None and {each.state for each in record.runs} == {"complete"}
