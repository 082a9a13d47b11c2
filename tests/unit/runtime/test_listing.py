"""Directories of runs: listed with what varies, and asked as one."""

import csv
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest

from smoothcert.errors import QueryError, RunDirectoryError
from smoothcert.runtime.listing import list_runs
from smoothcert.sql import open_query
from smoothcert.storage import Storage, join
from smoothcert.store import RunDirectory
from smoothcert.store.runs import find_runs

SMOOTHCERT = str(Path(sys.executable).parent / "smoothcert")


def add(make: Any, url: str, *overrides: str, units: int = 2, **digests: str) -> RunDirectory:
    """A run of two units of four pairs, ``units`` of them committed."""
    run = RunDirectory.create_or_open(url, make.identity(*overrides, **digests), make.units(2, 4))
    for unit in run.plan()[:units]:
        make.commit_unit(run, unit)
    return run


@pytest.fixture
def runs(url: str, make: Any) -> str:
    """Three runs of one job and one of another, beside what is no run; locally and on an object store."""
    add(make, join(url, "a"), "certify.sigma=0.25")
    add(make, join(url, "b"), "certify.sigma=0.5", units=1)
    add(make, join(url, "c"), "certify.sigma=0.5", "certify.seed=7", units=0)
    add(make, join(url, "other"), "name=other")
    storage = Storage(url)
    storage.replace("mlflow-artifacts/1/job.yaml", b"name: no run")
    storage.replace("mlflow.db", b"")
    return url


def test_runs_are_listed_with_their_state_and_what_varies(runs: str) -> None:
    entries = {entry.name: entry for entry in list_runs(runs)}
    assert list(entries) == ["a", "b", "c", "other"], "the oldest first"
    assert [entries[name].state for name in "abc"] == ["complete", "incomplete", "incomplete"]
    assert [(each.committed, each.pairs) for each in entries.values()] == [(8, 8), (4, 8), (0, 8), (8, 8)]
    assert entries["a"].quarantined == 1
    assert dict(entries["a"].varies) == {"certify.sigma": "0.25", "certify.seed": "0"}
    assert dict(entries["c"].varies) == {"certify.sigma": "0.5", "certify.seed": "7"}
    assert dict(entries["other"].varies) == {}, "the only one of its job"
    assert entries["a"].url == join(runs, "a")
    assert [entry.name for entry in list_runs(join(runs, "b"))] == ["b"], "a run is a list of one"


def test_data_encoder_and_code_vary_too(tmp_path: Path, make: Any) -> None:
    for name, digests in {
        "a": {},
        "b": {"data": "1" * 64},
        "c": {"encoder": "2" * 64},
        "d": {"code": "0.2"},
    }.items():
        add(make, str(tmp_path / name), **digests)
    varies = {entry.name: dict(entry.varies) for entry in list_runs(tmp_path)}
    assert varies["b"] == {"data_digest": "11111111", "encoder_digest": "eeeeeeee", "code_version": "0.1"}
    assert varies["d"]["code_version"] == "0.2"
    # where the job says why, digests say nothing more
    add(make, str(tmp_path / "f"), "data.uri=elsewhere.parquet", data="3" * 64)
    varies = {entry.name: dict(entry.varies) for entry in list_runs(tmp_path)}
    assert varies["f"]["data.uri"] == "elsewhere.parquet" and "data_digest" not in varies["f"]


def test_lists_that_follow_from_a_number_come_last(tmp_path: Path, make: Any) -> None:
    add(make, str(tmp_path / "a"), "certify.radii=[0.1]", "certify.sigma=0.1")
    add(make, str(tmp_path / "b"), "certify.radii=[0.2]", "certify.sigma=0.2")
    assert [list(entry.varies) for entry in list_runs(tmp_path)] == [["certify.sigma", "certify.radii"]] * 2


def test_who_was_heard_of_decides_between_running_and_incomplete(tmp_path: Path, make: Any) -> None:
    run = add(make, str(tmp_path / "a"), units=1)
    for ago, event, state in (
        (1, "progress", "running"),
        (7200, "progress", "incomplete, last seen 2 h ago"),
        (300, "end", "incomplete, last seen 5 min ago"),
        (86_400 * 3, "end", "incomplete, last seen 3 days ago"),
    ):
        line = json.dumps({"time": time.time() - ago, "worker": "far:7", "event": event})
        run.storage.replace("workers/far.jsonl", line.encode() + b"\n")
        assert list_runs(tmp_path)[0].state == state


def test_a_damaged_run_hides_no_other(tmp_path: Path, make: Any) -> None:
    add(make, str(tmp_path / "a"))
    add(make, str(tmp_path / "b"))
    (tmp_path / "b" / "run.json").write_text("{")
    entries = {entry.name: entry for entry in list_runs(tmp_path)}
    assert entries["a"].state == "complete"
    assert entries["b"].state == "unreadable" and "damaged" in entries["b"].trouble
    with pytest.raises(RunDirectoryError, match="b/run.json' is damaged"):
        open_query([str(tmp_path)])


def test_linked_runs_are_runs(tmp_path: Path, make: Any) -> None:
    add(make, str(tmp_path / "elsewhere" / "a"))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "elsewhere" / "a")
    assert find_runs(tmp_path / "runs") == [str(tmp_path / "runs" / "link")]


def test_a_run_that_was_moved_is_the_same_run(tmp_path: Path, make: Any) -> None:
    sql = "SELECT * EXCLUDE (url) FROM runs", "SELECT * FROM certificates ORDER BY pair_id"
    before = add(make, str(tmp_path / "runs" / "a"), units=1)
    with open_query([before.url]) as query:
        told = [query.sql(each).to_pylist() for each in sql]
    (tmp_path / "archive").mkdir()
    (tmp_path / "runs" / "a").rename(tmp_path / "archive" / "b")
    after = RunDirectory.create_or_open(str(tmp_path / "archive" / "b"), make.identity(), make.units(2, 4))
    assert not after.created and after.run_id == before.run_id
    with open_query([after.url]) as query:
        assert [query.sql(each).to_pylist() for each in sql] == told
    make.commit_unit(after, after.plan()[1])
    (entry,) = list_runs(tmp_path / "archive")
    assert (entry.name, entry.state, entry.committed) == ("b", "complete", 8)
    assert list((tmp_path / "runs").iterdir()) == [], "nothing goes where it was"


def test_a_directory_of_runs_is_asked_as_one(runs: str) -> None:
    sql = "SELECT r.name, r.sigma, r.seed, count(c.pair_id) AS n FROM runs r LEFT JOIN certificates c USING (run_id) "
    with open_query([runs]) as query:
        rows = query.sql(sql + "GROUP BY ALL ORDER BY ALL").to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("other", 0.5, 0, 8), ("tiny", 0.25, 0, 8), ("tiny", 0.5, 0, 4), ("tiny", 0.5, 7, 0),
    ]  # fmt: skip
    with pytest.raises(QueryError, match="given twice"):
        open_query([runs, join(runs, "a")])


def test_a_directory_without_runs_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(RunDirectoryError, match="no folder directly below") as caught:
            list_runs(place)
        assert "output.runs" in caught.value.remedy
    fs = fsspec.filesystem("memory")
    assert not fs.exists("memory://nowhere-at-all")
    with pytest.raises(RunDirectoryError):
        list_runs("memory://nowhere-at-all")


def test_the_commands(tmp_path: Path, make: Any) -> None:
    def smoothcert(*arguments: object) -> str:
        done = subprocess.run(
            [SMOOTHCERT, *map(str, arguments)], capture_output=True, text=True, timeout=120, cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "80"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    add(make, str(tmp_path / "runs" / "s25"), "certify.sigma=0.25")
    add(make, str(tmp_path / "runs" / "s50"), "certify.sigma=0.5", units=1)
    lines = smoothcert("ls").splitlines()
    assert [line.split() for line in lines] == [
        ["run", "state", "pairs", "what", "varies"],
        ["s25", "complete", "8,", "1", "quarantined", "certify.sigma=0.25"],
        ["s50", "incomplete", "4", "of", "8,", "1", "quarantined", "certify.sigma=0.5"],
    ]
    assert (
        len({line.find(word) for line, word in zip(lines, ("what", "certify", "certify"), strict=True)}) == 1
    )
    told = [json.loads(line) for line in smoothcert("ls", "runs", "--json").splitlines()]
    assert [each["varies"] for each in told] == [{"certify.sigma": "0.25"}, {"certify.sigma": "0.5"}]
    sql = "SELECT run_id, count(*) AS n FROM certificates GROUP BY 1 ORDER BY 2"
    rows = list(csv.reader(io.StringIO(smoothcert("query", "runs", sql, "--format", "csv"))))
    assert [row[1] for row in rows] == ["n", "4", "8"]
