"""Whole runs in this process on memory:// and on stores without exclusive creation: the same rows as on a disk."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from smoothcert.datasets import write_synthetic
from smoothcert.encoders import KnownEncoder
from smoothcert.errors import RunDirectoryError, StoreError
from smoothcert.job import parse_job
from smoothcert.runtime import driver as driver_module
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor
from smoothcert.runtime.status import read_status
from smoothcert.sql import Query
from smoothcert.storage import Storage
from smoothcert.store import CommitLog, RunDirectory, lease
from smoothcert.store.compact import compact
from smoothcert.store.gc import collect

ENCODER = KnownEncoder.rotating(1.0, input_size=(8, 8))
JOB = """
name: stores
data: {{format: parquet, uri: "{data}"}}
encoder: {{model: "test:known", slots: 4, chunk: 8, threads: 1}}
certify: {{sigma: 0.25, alpha: 0.01, pilot_draws: 7, max_draws: 8, radii: [0.1]}}
executor: {{pairs_per_unit: 10}}
output: {{runs: "{runs}", run: r}}
tracking: {{enabled: false}}
"""
_numbers = itertools.count()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_synthetic(str(tmp_path / "data"), "parquet", pairs=40, pairs_per_shard=20, size=8, seed=1)
    return tmp_path / "data"


@pytest.fixture(params=["exclusive", "single committer"])
def runs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "single committer":
        monkeypatch.setattr(Storage, "supports_exclusive_create", lambda self, directory="": False)
        monkeypatch.setattr(lease, "SETTLE_S", 0.05)
    url = f"memory://stores-{next(_numbers)}"
    yield url
    fsspec.filesystem("memory").rm(url, recursive=True)


def driver(data: Path, runs: str, *changes: str) -> Driver:
    return Driver(parse_job(JOB.format(data=data, runs=runs), changes), ENCODER)


def rows(url: str) -> list[tuple[object, ...]]:
    with Query([RunDirectory.open(url)]) as query:
        sql = "SELECT pair_id, status, draws, smooth_norm_lcb, angular FROM certificates ORDER BY 1"
        return [tuple(row.values()) for row in query.sql(sql).to_pylist()]


def test_a_run_in_memory_stops_resumes_and_has_the_rows_of_a_run_on_disk(data, tmp_path, runs):
    stop = threading.Event()
    first = driver(data, runs).work("certification", Monitor(lambda result: stop.set(), stop=stop))
    assert first.stopped and 0 < first.missing < 40
    second = driver(data, runs).work("certification", Monitor(lambda result: None))
    assert (second.missing, second.resumed, second.failed) == (0, 40 - first.missing, {})
    calm = driver(data, str(tmp_path / "runs"))
    assert calm.work("certification", Monitor(lambda result: None)).missing == 0
    expected = rows(calm.url)
    assert len(expected) == 40 and rows(f"{runs}/r") == expected
    run = RunDirectory.open(f"{runs}/r")
    assert read_status(run.url).complete and run.exclusive == calm.run.exclusive
    with pytest.raises(RunDirectoryError, match="the differences are"):
        _ = driver(data, runs, "certify.sigma=0.5").run
    with run.committing():
        assert run.commits.fold(min_new=1)
    assert compact(RunDirectory.open(run.url)).files_after == 1
    assert rows(run.url) == expected
    collect(driver(data, runs).run)
    assert rows(run.url) == expected


def test_the_driver_finds_out_once_how_commits_are_made_and_tells_workers(data, runs, monkeypatch, caplog):
    probes = []
    real = Storage.supports_exclusive_create

    def probe(self: Storage, directory: str = "") -> bool:
        probes.append(directory)
        return real(self, directory)

    first = driver(data, runs)
    exclusive = first.run.exclusive
    monkeypatch.setattr(Storage, "supports_exclusive_create", probe)
    assert first.opening().exclusive is exclusive
    assert first.work("certification", Monitor(lambda result: None)).missing == 0
    assert probes == []
    assert ("commits: by this driver only" in caplog.text) is not exclusive
    status = read_status(first.url)
    assert [worker.drives for worker in status.workers] == [False] and len(status.drivers) == 1
    assert [each.last_trouble for each in status.drivers] == [None]


def test_folding_that_fails_ends_no_run(data, runs, monkeypatch, caplog):
    def fold(self: object, **options: object) -> bool:
        raise StoreError("the store is away")

    monkeypatch.setattr(driver_module, "_FOLD_EVERY", 1)
    monkeypatch.setattr(CommitLog, "fold", fold)
    assert driver(data, runs).work("certification", Monitor(lambda result: None)).missing == 0
    assert "not folded into a manifest: the store is away" in caplog.text


def test_the_rate_of_a_run_that_stopped_long_ago_is_not_shown(data, runs, monkeypatch):
    first = driver(data, runs)
    assert first.work("certification", Monitor(lambda result: None)).missing == 0
    status = read_status(first.url)
    assert status.draws_per_s is not None and "over the last two minutes" in "".join(status.lines())
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + 3600)
    status = read_status(first.url)
    assert (status.draws_per_s, status.eta_s) == (None, None) and "over the last two minutes" not in "".join(
        status.lines()
    )
