"""Choosing on pairs set aside: the best combination wins, the others are certified, no pair is in both."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from smoothcert.cli.main import app
from smoothcert.datasets import write_demo_data
from smoothcert.errors import JobError
from smoothcert.job import load_study
from smoothcert.job.data import PartSection
from smoothcert.sql import open_query
from smoothcert.studies.tuning import on_part, refuse_rows_chosen_on, tuning_section

STUDY = """
name: tuned
data: {{format: parquet, uri: "{here}/digits", limit: 24}}
encoder: {{model: "bundled:digits-clip", slots: 4, chunk: 8, threads: 1}}
certify: {{alpha: 0.05, pilot_draws: 7, max_draws: 160, radii: [0.02]}}
zero_shot:
  labels: [zero, one, two, three, four, five, six, seven, eight, nine]
  prompts: ["a photo of the digit {{label}}"]
output: {{runs: "{here}/runs"}}
tracking: {{enabled: false}}
study: {{grid: {{certify.sigma: [4.0, 0.1, 5.0]}}}}
tune:
  goal: {{certificate: angular, cosine: 0.5, radius: 0.02}}
  limits: {{{limits}}}
  pairs: 8
  first: 4
"""


def write(here: Path, limits: str = "") -> Path:
    write_demo_data(here / "digits", "parquet")
    (here / "study.yaml").write_text(STUDY.format(here=here, limits=limits))
    return here / "study.yaml"


def pairs_of(*runs: Path) -> set[str]:
    with open_query([os.fspath(run) for run in runs]) as query:
        return {row["pair_id"] for row in query.sql("SELECT pair_id FROM certificates").to_pylist()}


def test_the_best_is_certified_on_pairs_that_no_trial_has_seen(tmp_path: Path) -> None:
    # under much noise every feature is the same: easily certified, and worth nothing
    file = write(tmp_path, "accuracy_drop: 0.4")
    for _ in range(2):  # the second time nothing is left to do
        with pytest.raises(SystemExit) as ended:
            app(["tune", str(file)])
        assert not ended.value.code
    told = json.loads((tmp_path / "runs/tuned-tuned.study/study.json").read_text())
    tuning = told["tuning"]
    assert tuning["chosen"] == "sigma 0.1"
    assert [each["pairs"] for each in tuning["tried"] if each["label"] == "sigma 5"] == [4], (
        "given up after 4 pairs"
    )
    assert tuning["chosen_on"] == {"set_aside": 8, "use": "set_aside"}
    final = Path(told["runs"][0]["url"])
    assert json.loads((final / "run.json").read_text())["job"]["data"]["part"]["use"] == "rest"
    trials = [path.parent for path in (tmp_path / "runs").glob("*/run.json") if path.parent != final]
    assert len(trials) == 5, "4 and 8 pairs for the first two, 4 for the last"
    seen, certified = pairs_of(*trials), pairs_of(final)
    assert (len(seen), len(certified), len(seen & certified)) == (8, 16, 0)


def test_rules_that_would_do_compete_and_rows_of_an_earlier_tuning_stay_refused(tmp_path: Path) -> None:
    file = write(tmp_path)
    goals = "[{certificate: class, radius: 0.05}, {certificate: vote, radius: 0.05}]"
    settings = ("--set", f"tune.goal={goals}", "--set", "study={grid: {certify.sigma: [0.1]}}")
    with pytest.raises(SystemExit) as ended:
        app(["tune", str(file), *settings])
    assert not ended.value.code
    told = json.loads((tmp_path / "runs/tuned-tuned.study/study.json").read_text())
    tried = {each["label"]: each["share"] for each in told["tuning"]["tried"]}
    assert len(tried) == 2 and {label.rpartition(", ")[2] for label in tried} == {"class@0.05", "vote@0.05"}
    assert tried[told["tuning"]["chosen"]] == max(tried.values()) > 0
    final = Path(told["runs"][0]["url"])
    targets = json.loads((final / "run.json").read_text())["targets"]
    assert targets == [told["tuning"]["chosen"].rpartition(", ")[2]], "the one rule that was chosen"

    before = (tmp_path / "runs/tuned-tuned.study/study.json").read_bytes()
    for path in sorted((tmp_path / "runs").glob("*tuning*")):  # none of them is a trial of the second tuning
        assert json.loads((path / "run.json").read_text())["job"]["data"]["part"]["set_aside"] == 8
    with pytest.raises(JobError, match="pairs that the choice was made on would be certified"):
        app(["tune", str(file), *settings, "--set", "tune.pairs=9"], standalone_mode=False)
    assert (tmp_path / "runs/tuned-tuned.study/study.json").read_bytes() == before

    named_otherwise = ("--set", "name=again", "--set", "tune.pairs=9")
    with pytest.raises(JobError, match="pairs that the choice was made on would be certified"):
        app(["tune", str(file), *settings, *named_otherwise], standalone_mode=False)
    assert not (tmp_path / "runs/again-tuned.study").exists()
    # files of the same names, which nothing was chosen on
    shutil.copytree(tmp_path / "digits", tmp_path / "other/digits")
    elsewhere = ("--set", f"data.uri={tmp_path / 'other/digits'}")
    with pytest.raises(SystemExit) as ended:
        app(["tune", str(file), *settings, *named_otherwise, *elsewhere])
    assert not ended.value.code


def test_limits_that_nothing_keeps_to_certify_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, "draws_per_pair: 5")
    with pytest.raises(JobError, match="no combination keeps to the limits") as caught:
        few = ("--set", "certify.max_draws=8", "--set", "study={grid: {certify.sigma: [0.1, 5.0]}}")
        app(["tune", str(file), *few], standalone_mode=False)
    assert "tune.limits" in caught.value.remedy
    assert not (tmp_path / "runs/tuned-tuned.study").exists()


def test_a_pair_that_the_choice_was_made_on_is_refused(tmp_path: Path) -> None:
    from smoothcert.runtime.driver import Driver

    study = load_study(write(tmp_path))
    aside = PartSection(set_aside=8, use="set_aside")
    trial = Driver(on_part(study.combinations[1], aside).job)
    url = trial.run.url
    refuse_rows_chosen_on(on_part(study.combinations[1], PartSection(set_aside=8, use="rest")).job, [url])
    for job in (study.combinations[1].job, on_part(study.combinations[1], aside).job):
        with pytest.raises(JobError, match="8 pairs that the choice was made on"):
            refuse_rows_chosen_on(job, [url])


def test_what_cannot_be_tuned_is_said_before_work(tmp_path: Path) -> None:
    file = write(tmp_path, "accuracy_drop: 0.01")
    for override, said in (
        ("data.part={set_aside: 4, use: rest}", "data.part is set"),
        ("zero_shot=null", "accuracy_drop needs classes"),
        ("certify.method=hoeffding", "cannot be a target"),
        ("tune=null", "no section 'tune'"),
    ):
        with pytest.raises(JobError, match=said):
            tuning_section(load_study(file, [override]))
