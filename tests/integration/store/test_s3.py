"""The store on an S3-compatible server: the same promises as on a local disk."""

import multiprocessing
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import fsspec
import pytest

from smoothcert.errors import RunDirectoryError, StoreError
from smoothcert.sql import open_query
from smoothcert.storage import Storage, steady
from smoothcert.store import RunDirectory, lease
from smoothcert.store.compact import compact
from smoothcert.store.gc import collect


def count(run: RunDirectory) -> tuple[int, int]:
    with open_query([run.url]) as query:
        [row] = query.sql("SELECT count(*) AS n, count(DISTINCT pair_id) AS d FROM certificates").to_pylist()
    return row["n"], row["d"]


def test_a_whole_run(s3: str, make: Any) -> None:
    run = RunDirectory.create_or_open(f"{s3}/runs/my run #1", make.identity(), make.units(6))
    assert run.created and run.exclusive and run.commits.may_commit
    assert RunDirectory.open(run.url).commits.may_commit
    for unit in run.plan()[:4]:
        assert make.commit_unit(run, unit)
        assert not make.commit_unit(run, unit)
    assert run.commits.fold(min_new=1)
    again = RunDirectory.create_or_open(run.url, make.identity(), ())
    assert not again.created
    for unit in again.pending():
        assert make.commit_unit(again, unit)
    assert count(run) == (24, 24)
    assert compact(run).files_after == 1
    assert count(run) == (24, 24)
    gone = collect(run, grace=timedelta(hours=-1), nothing_else_runs=True)
    assert len(gone) == 6 + 4 + 1, "small parts, losers, the first manifest"
    assert count(run) == (24, 24)
    with open_query([run.url]) as query:
        [share] = query.sql("SELECT * FROM certified_share WHERE claim = 'class@0.25'").to_pylist()
        assert share["certified"] == 21 and share["interval"] == "exact"
    with pytest.raises(RunDirectoryError, match="certify.seed: 0 here, 5 now"):
        RunDirectory.create_or_open(run.url, make.identity("certify.seed=5"), ())


def test_creation_is_exclusive_among_threads(s3: str) -> None:
    def race(name: str) -> list[bytes]:
        barrier = threading.Barrier(6)
        won: list[bytes] = []

        def create(data: bytes) -> None:
            storage = Storage(s3)
            barrier.wait()
            if storage.create(name, data):
                won.append(data)

        threads = [threading.Thread(target=create, args=(b"%d" % i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return won

    for i in range(5):
        [winner] = race(f"commits/{i}")
        assert Storage(s3).read(f"commits/{i}") == winner


def test_of_several_processes_each_unit_is_committed_by_one(
    s3: str, make: Any, fork: Callable[..., Any]
) -> None:
    run = RunDirectory.create_or_open(f"{s3}/race", make.identity(), make.units(8))
    context = multiprocessing.get_context("fork")
    won, ready = context.SimpleQueue(), context.Barrier(3)

    def race() -> None:
        mine = RunDirectory.open(run.url)
        ready.wait(60)
        won.put(sum(make.commit_unit(mine, unit) for unit in mine.plan()))

    workers = [fork(race) for _ in range(3)]
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * 3
    assert sum(won.get() for _ in workers) == 8
    assert count(run) == (32, 32)


def test_two_drivers_at_once_share_a_run(s3: str, make: Any) -> None:
    barrier = threading.Barrier(3)
    runs: list[RunDirectory] = []

    def start() -> None:
        barrier.wait()
        runs.append(RunDirectory.create_or_open(f"{s3}/both", make.identity(), make.units(3)))

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({run.run_id for run in runs}) == 1 and sum(run.created for run in runs) == 1


def test_a_put_whose_answer_was_lost_counts(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(s3)
    monkeypatch.setattr(steady, "WAITS_S", (0.0, 0.0))
    real = storage.fs.pipe_file

    def forgetful(path: str, data: bytes, **options: Any) -> None:
        real(path, data, **options)
        raise TimeoutError("answer lost")

    monkeypatch.setattr(storage.fs, "pipe_file", forgetful)
    assert storage.create("commits/u", b"mine")
    assert not storage.create("commits/u", b"theirs")
    assert storage.read("commits/u") == b"mine"


def test_a_put_that_met_another_is_tried_again(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError

    storage = Storage(s3)
    monkeypatch.setattr(steady, "WAITS_S", (0.0, 0.0))
    real = storage.fs.pipe_file
    calls = []

    def conflicting(path: str, data: bytes, **options: Any) -> None:
        calls.append(path)
        if len(calls) == 1:
            response = {"Error": {"Code": "ConditionalRequestConflict", "Message": "x"}}
            raise OSError(5, "x") from ClientError(response, "PutObject")
        real(path, data, **options)

    monkeypatch.setattr(storage.fs, "pipe_file", conflicting)
    assert storage.create("commits/u", b"mine") and len(calls) == 2


def test_a_store_that_ignores_conditions_has_a_single_committer(
    s3: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = fsspec.get_filesystem_class("s3")
    real = cls._pipe_file

    async def unconditional(
        self: Any, path: str, data: bytes, mode: str = "overwrite", **options: Any
    ) -> Any:
        return await real(self, path, data, mode="overwrite", **options)

    monkeypatch.setattr(cls, "_pipe_file", unconditional)
    monkeypatch.setattr(lease, "SETTLE_S", 0.05)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    driver = RunDirectory.create_or_open(f"{s3}/old store", make.identity(), make.units(2))
    worker = RunDirectory.open(driver.url)
    assert not driver.exclusive and not driver.commits.may_commit and not worker.commits.may_commit
    unit = driver.plan()[0]
    commit = make.attempt_unit(worker, unit.unit_id, make.unit_rows(unit))
    with pytest.raises(StoreError, match="cannot be committed by a worker"):
        worker.commits.commit(commit)
    with driver.committing():
        assert driver.commits.commit(commit) and driver.commits.fold(min_new=1)
    assert count(driver) == (4, 4)


def test_a_missing_bucket_is_told(s3: str, make: Any) -> None:
    with pytest.raises(StoreError, match="does not exist") as caught:
        RunDirectory.create_or_open("s3://no-such-bucket-here/run", make.identity(), make.units(1))
    assert "bucket must exist" in str(caught.value)


def test_a_truncated_object_is_noticed(s3: str, make: Any) -> None:
    run = RunDirectory.create_or_open(f"{s3}/cut", make.identity(), make.units(1))
    unit = run.plan()[0]
    commit = make.attempt_unit(run, unit.unit_id, make.unit_rows(unit))
    whole = run.storage.read(commit.parts[0].file)
    run.storage.replace(commit.parts[0].file, whole[:-100])
    with pytest.raises(StoreError, match="differs from what was written"):
        run.commits.commit(commit)


def test_credentials_are_nowhere_in_the_run(s3: str, make: Any, secret: str) -> None:
    run = RunDirectory.create_or_open(f"{s3}/clean", make.identity(), make.units(2))
    for unit in run.plan():
        make.commit_unit(run, unit)
    run.commits.fold(min_new=1)
    fs, root = fsspec.core.url_to_fs(run.url)
    files = fs.find(root)
    assert len(files) >= 7
    for file in files:
        data = fs.cat_file(file)
        assert secret.encode() not in data and b"test-key" not in data, file
    with open_query([run.url]) as query:
        assert secret not in str(query.sql("FROM duckdb_settings()").to_pylist())
        assert secret not in str(query.sql("FROM runs").to_pylist())


@pytest.mark.timeout(120)
def test_a_lost_part_is_an_error_and_not_a_hang(s3: str, make: Any) -> None:
    run = RunDirectory.create_or_open(f"{s3}/lost", make.identity(), make.units(3))
    for unit in run.plan():
        make.commit_unit(run, unit)
    run.storage.remove(run.commits.load().files("certificates")[1])
    with open_query([run.url]) as query:
        for _ in range(10):
            with pytest.raises((StoreError, ValueError)):
                query.sql("SELECT avg(draws) FROM certificates")
