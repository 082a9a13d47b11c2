"""`smoothcert monitor` on the digits: nights against a reference, a worse encoder found, SIGKILL, what is refused."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from smoothcert.cli.main import app
from smoothcert.datasets import write_demo_data
from smoothcert.errors import JobError, QueryError, StoreError
from smoothcert.job import parse_job
from smoothcert.monitor.history import MonitorDirectory, Night, Watched, make_trend
from smoothcert.monitor.nightly import find_claim, job_of, same_claims
from smoothcert.statistics import share_interval
from smoothcert.store import RunDirectory

JOB = """
name: digits
data: {{format: parquet, uri: {data}, limit: 60}}
encoder: {{model: "bundled:digits-clip", slots: 8, chunk: 16, threads: 1}}
certify: {{sigma: 0.25, alpha: 0.1, pilot_draws: 16, max_draws: 64, radii: [0.0625, 0.25], cosines: [0.5]}}
output: {{runs: {runs}}}
tracking: {{enabled: false}}
"""
CLAIM = "angular>=0.5@0.0625"


def die_at(at: str, number: int) -> None:
    """Have this process killed before the n-th time that it opens, links or renames a file there."""
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event in ("open", "os.link", "os.rename") and any(
            isinstance(a, str) and at in a for a in arguments
        ):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job, and the finished run of it that nights are compared with."""
    torch.set_num_threads(1)
    where = tmp_path_factory.mktemp("monitor")
    write_demo_data(where / "data", "parquet")
    (where / "job.yaml").write_text(JOB.format(data=where / "data", runs=where / "runs"))
    done = CliRunner().invoke(app, ["certify", str(where / "job.yaml"), "--set", "output.run=reference"])
    assert done.exit_code == 0, done.output
    return where


def arguments(place: Path, night: str, *more: str, directory: str = "watch") -> list[str]:
    return [
        "monitor",
        str(place / "job.yaml"),
        f"--against={place / 'runs' / 'reference'}",
        f"--claim={CLAIM}",
        "--pairs=14",
        f"--night={night}",
        f"--directory={place / directory}",
        *more,
    ]


def run(place: Path, night: str, *more: str, directory: str = "watch") -> Result:
    return CliRunner().invoke(app, arguments(place, night, *more, directory=directory))


def nights(place: Path, directory: str = "watch") -> list[dict[str, object]]:
    files = sorted((place / directory / "nights").iterdir())
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def held_of(run_url: str) -> dict[str, bool]:
    """Whether each pair of a run is certified, read from its parts."""
    rows = [
        row
        for part in Path(run_url, "certificates").glob("*.parquet")
        for row in pq.read_table(part).to_pylist()
    ]
    return {
        row["pair_id"]: bool(row["angular"] and row["angular"][0] and row["angular"][0] >= 0.5)
        for row in rows
    }


@pytest.fixture(scope="module")
def two_nights(place: Path) -> Path:
    """The directory of a watch of two nights."""
    first = run(place, "2026-01-01")
    assert first.exit_code == 0 and "no drop of more than 2.0% shown" in first.output, first.output
    assert run(place, "2026-01-02").exit_code == 0
    return place / "watch"


def test_nights_count_their_pairs_once(place: Path, two_nights: Path) -> None:
    def kept() -> dict[Path, bytes]:
        """All but the page, which says when it was made."""
        files = [
            file for file in (place / "watch").rglob("*") if file.is_file() and file.name != "trend.html"
        ]
        return {file: file.read_bytes() for file in files}

    before = kept()
    again = run(place, "2026-01-02")
    assert again.exit_code == 0
    assert kept() == before and (place / "watch" / "trend.html").is_file()
    reference, seen = held_of(str(place / "runs" / "reference")), []
    for row in nights(place):
        held = held_of(str(row["run_url"]))
        assert len(held) == row["pairs"] == 14 and set(held) <= set(reference)
        assert row["certified"] == sum(held.values())
        assert row["reference_certified"] == sum(reference[pair] for pair in held)
        assert row["lost"] == sum(reference[pair] and not held[pair] for pair in held)
        assert row["gained"] == sum(held[pair] and not reference[pair] for pair in held)
        seen.append(set(held))
    assert seen[0] != seen[1], "drawn anew every night"
    history = CliRunner().invoke(
        app, ["monitor", str(place / "watch"), "--history", f"--csv={place / 'n.csv'}"]
    )
    assert history.exit_code == 0
    rows = list(csv.DictReader((place / "n.csv").read_text().splitlines()))
    assert [row["night"] for row in rows] == ["2026-01-01", "2026-01-02"] and {
        row["alarm"] for row in rows
    } == {"False"}


def test_a_worse_encoder_raises_the_alarm_which_stands(place: Path) -> None:
    """Too few draws to certify anything: every pair that the reference certified is lost."""
    assert run(place, "n1", "--set=certify.max_draws=2", directory="worse").exit_code == 1
    assert run(place, "n2", directory="worse").exit_code == 1, "a good night does not take it back"
    refused = run(place, "n3", "--alpha=0.2", directory="worse")
    assert isinstance(refused.exception, JobError) and "watches alpha=0.01, not 0.2" in str(refused.exception)


def test_sigkill_in_the_middle_loses_nothing(place: Path, forked: Callable[..., Any]) -> None:
    """Killed at a commit and again when its row is made, a night has the row of one that was left alone."""
    (place / "alone").mkdir()
    settings = place / "killed" / "monitor.json"
    for at, number in (("/commits/", 9), ("killed/nights/", 1)):
        killed = forked(*arguments(place, "k1", directory="killed"), first=partial(die_at, at, number))
        assert killed.wait() == -signal.SIGKILL
    assert not list((place / "killed").glob("nights/*.parquet"))
    assert run(place, "k1", directory="killed").exit_code == 0
    (place / "alone" / "monitor.json").write_text(settings.read_text())
    assert run(place, "k1", "--set=output.runs=" + str(place / "others"), directory="alone").exit_code == 0
    (restarted,), (alone,) = nights(place, "killed"), nights(place, "alone")
    assert restarted.pop("run_url") != alone.pop("run_url")
    ids = [str(row.pop("run_id")).rpartition("-")[0] for row in (restarted, alone)]
    assert ids[0] == ids[1], "what follows is of the directory"
    assert restarted == alone


def test_what_is_refused_before_work(place: Path, two_nights: Path) -> None:
    runs = sorted((place / "runs").iterdir())
    for more, error, words in (
        (["--claim=angular>=0.55@0.0625"], QueryError, "did you mean 'angular>=0.5@0.0625'"),
        (["--against=nowhere"], Exception, "nowhere"),
        (["--set=data.part={set_aside: 4, use: rest}"], JobError, "draws the pairs of each night itself"),
        (["--night=../x"], JobError, "not a valid name for a night"),
        (["--set=certify.cosines=[0.6]"], QueryError, "job makes no claim"),
    ):
        found = run(place, "x1", *more, directory="refused-" + str(len(words)))
        assert isinstance(found.exception, error) and words in str(found.exception), (more, found.exception)
    late = run(place, "2025-12-31")
    assert isinstance(late.exception, JobError) and "comes before the last one" in str(late.exception)
    assert {each for each in sorted((place / "runs").iterdir()) if list(each.glob("certificates/*"))} == {
        each for each in runs if list(each.glob("certificates/*"))
    }


def watched(paired: bool) -> Watched:
    return Watched("r", "r", CLAIM, paired, (800, 1000), 0.02, 0.01, 100, 7)


def test_new_data_is_held_against_the_lower_end_of_the_reference() -> None:
    low, _ = share_interval(800, 1000, 0.99)
    assert watched(False).most == pytest.approx(1.0 - (low - 0.02))
    good = [Night(f"n{i}", "r", "u", "e", "d", 100, 80) for i in range(30)]
    bad = [Night(f"o{i}", "r", "u", "e", "d", 100, 60) for i in range(20)]
    assert make_trend(watched(False), good).alarm is None
    found = make_trend(watched(False), [*good, *bad]).alarm
    assert found is not None and found >= 30


def test_of_two_who_finish_a_night_the_first_counts(tmp_path: Path) -> None:
    directory = MonitorDirectory(str(tmp_path / "m"))
    there = directory.settle(watched(True))
    assert directory.settle(Watched("r", "r", CLAIM, True, (800, 1000), 0.02, 0.01, 100, 8)) == there
    first = directory.add(Night("n1", "a", "u", "e", "d", 100, 80, 80, 0, 0))
    assert directory.add(Night("n1", "b", "u", "e", "d", 100, 10, 80, 0, 70)) == first
    assert json.loads((tmp_path / "m" / "monitor.json").read_text())["seed"] == 7
    assert directory.trend().nights == (first,)


def test_a_reference_that_was_moved_is_read_where_it_is_now(place: Path, two_nights: Path) -> None:
    shutil.copytree(two_nights, place / "moving")
    (place / "runs" / "reference").rename(place / "elsewhere")
    try:
        found = run(place, "2026-01-03", f"--against={place / 'elsewhere'}", directory="moving")
    finally:
        (place / "elsewhere").rename(place / "runs" / "reference")
    assert found.exit_code == 0, found.output
    assert [row["night"] for row in nights(place, "moving")] == ["2026-01-01", "2026-01-02", "2026-01-03"]


def test_a_night_that_ends_after_a_later_one_is_not_put_before_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would change the evidence of what was seen already, and could take back an alarm."""
    from smoothcert.monitor import nightly

    def measure(watched: Watched, night: str, *runs: object) -> Night:
        MonitorDirectory(str(place / "late")).add(Night("l2", "r", "u", "e", "d", 14, 0, 14, 0, 14))
        return Night(night, "r", "u", "e", "d", 14, 14, 14, 0, 0)

    monkeypatch.setattr(nightly, "measure", measure)
    found = run(place, "l1", directory="late")
    assert isinstance(found.exception, JobError) and "comes before the last one" in str(found.exception)
    assert MonitorDirectory(str(place / "late")).names() == ["l2"]


def test_a_target_is_not_held_against_a_bound_of_the_grid(place: Path) -> None:
    target = "--set=certify.targets=[{certificate: angular, cosine: 0.5, radius: 0.0625}]"
    found = run(place, "t1", target, directory="kinds")
    assert isinstance(found.exception, JobError) and "is a target of the job" in str(found.exception)
    assert not (place / "kinds" / "nights").exists()


RETRIEVAL = (
    "retrieval={candidates: 50}",
    "certify.targets=[{certificate: angular, cosine: 0.5, radius: 0.0625}, {certificate: retrieval, radius: 0.0625}]",
)


def test_a_night_leaves_retrieval_out(place: Path) -> None:
    """Its candidates would be captions of the night's pairs: too few, and others than those of the reference."""
    job = parse_job((place / "job.yaml").read_text(), RETRIEVAL)
    night = job_of(job, watched(True), "n1")
    assert night.retrieval is None and [each.name for each in night.certify.targets] == [CLAIM]
    assert night.data.sample is not None and night.data.sample.pairs == 100


def test_retrieval_is_not_watched_and_a_grid_wants_equal_targets(place: Path) -> None:
    info = RunDirectory.open(str(place / "runs" / "reference")).info
    other = dataclasses.replace(info, job=parse_job((place / "job.yaml").read_text(), RETRIEVAL))
    with pytest.raises(QueryError, match="about retrieval among captions of the data") as refused:
        find_claim(other, "retrieval@0.0625", "reference")
    assert CLAIM in str(refused.value) and "retrieval" not in str(refused.value).partition("one of:")[2]
    grid = dataclasses.replace(watched(True), claim="angular>=0.5@0.25")
    with pytest.raises(JobError, match="drawing ends at other targets"):
        same_claims(grid, other, info)
    assert [each.kind for each in same_claims(grid, info, info)] == ["grid", "grid"]


def test_a_history_that_cannot_be_written_is_said_and_shown(tmp_path: Path) -> None:
    directory = MonitorDirectory(str(tmp_path / "m"))
    directory.settle(watched(True))
    directory.add(Night("n1", "a", "u", "e", "d", 100, 80, 80, 0, 0))
    found = CliRunner().invoke(
        app, ["monitor", directory.url, "--history", f"--csv={tmp_path / 'nowhere' / 'n.csv'}"]
    )
    assert isinstance(found.exception, StoreError) and "cannot write the history" in str(found.exception)
    assert "n1" in found.output
