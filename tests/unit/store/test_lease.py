"""Drivers on a store that cannot create files exclusively: one at a time, whoever is killed or stalls."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from smoothcert.errors import RunDirectoryError, StoreError
from smoothcert.storage import Storage
from smoothcert.store import CommitLog, RunDirectory
from smoothcert.store.lease import LEASE_FILE, DriverLease

Opener = Callable[..., RunDirectory]


@pytest.fixture(autouse=True)
def quick(quick_lease: None) -> None:
    pass


@pytest.fixture(autouse=True)
def no_exclusive_creation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Storage, "supports_exclusive_create", lambda self, directory="": False)


def test_a_living_driver_keeps_others_out(url: str) -> None:
    with DriverLease(Storage(url)):
        time.sleep(0.3)
        with pytest.raises(RunDirectoryError, match=f"process {os.getpid()}") as caught:
            DriverLease(Storage(url)).__enter__()
        assert caught.value.exit_code == 2 and "stop it" in caught.value.remedy
    with DriverLease(Storage(url)):
        pass
    assert not Storage(url).exists(LEASE_FILE)


def test_a_clean_end_lets_the_next_in_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # who waited for a beat would not come back before the test is ended
    monkeypatch.setattr("smoothcert.store.lease.BEAT_S", 3600.0)
    monkeypatch.setattr("smoothcert.store.lease._LONGEST_BEAT_S", 3600.0)
    for _ in range(3):
        with DriverLease(Storage(url)):
            pass


@pytest.mark.parametrize("left", [b"", b"[1]", b'{"token": "x", "beat_s": 1e9}', b'{"token": "x"}'])
def test_what_a_dead_driver_left_is_taken_over(
    url: str, left: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smoothcert.store.lease._LONGEST_BEAT_S", 0.1)
    Storage(url).replace(LEASE_FILE, left)
    started = time.monotonic()
    with DriverLease(Storage(url)) as lease:
        assert time.monotonic() - started > 0.2
        lease.check()


KILLED = """
import os, signal, sys
from smoothcert.storage import Storage
from smoothcert.store import lease
lease.BEAT_S, lease.SETTLE_S = 0.1, 0.05
with lease.DriverLease(Storage(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_driver_is_outlived(tmp_path: Any) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], timeout=60)
    assert done.returncode == -9 and (tmp_path / LEASE_FILE).exists()
    with DriverLease(Storage(tmp_path)) as lease:
        lease.check()


def test_of_two_that_start_at_once_at_most_one_goes_on(url: str) -> None:
    barrier = threading.Barrier(4)
    inside: list[int] = []
    most: list[int] = []
    refused: list[RunDirectoryError] = []

    def start(number: int) -> None:
        barrier.wait()
        try:
            with DriverLease(Storage(url)):
                inside.append(number)
                most.append(len(inside))
                time.sleep(0.5)
                inside.remove(number)
        except RunDirectoryError as exc:
            refused.append(exc)

    threads = [threading.Thread(target=start, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(refused) >= 1 and len(most) + len(refused) == 4


def test_a_driver_that_was_taken_over_commits_nothing_more(open_run: Opener, make: Any) -> None:
    run = open_run(units=2)
    first, second = (make.attempt_unit(run, u.unit_id, make.unit_rows(u)) for u in run.plan())
    with run.committing():
        assert run.commits.commit(first)
        run.storage.replace(LEASE_FILE, json.dumps({"token": "other", "host": "far", "pid": 7}).encode())
        time.sleep(0.3)
        with pytest.raises(StoreError, match="taken over by the driver on host 'far', process 7"):
            run.commits.commit(second)
        with pytest.raises(StoreError, match="taken over"):
            run.commits.fold(min_new=1)
    assert run.storage.exists(LEASE_FILE), "the other's lease is left alone"
    assert run.commits.unit_ids() == {first.unit_id}


def test_after_a_silence_the_store_is_asked_before_the_commit(
    open_run: Opener, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(units=1)
    [unit] = run.plan()
    commit = make.attempt_unit(run, unit.unit_id, make.unit_rows(unit))
    monkeypatch.setattr(DriverLease, "_beat_on", lambda self: None)  # a stalled process
    with DriverLease(run.storage) as lease:
        log = CommitLog(run.storage, exclusive=False, lease=lease)
        time.sleep(0.2)
        run.storage.replace(LEASE_FILE, b'{"token": "other"}')
        with pytest.raises(StoreError, match="taken over"):
            log.commit(commit)
    assert run.commits.unit_ids() == set()


def test_beats_that_fail_are_tried_again(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    storage = Storage(url)
    real = storage.replace
    fail = threading.Event()

    def replace(file: str, data: bytes) -> None:
        if fail.is_set():
            raise StoreError("the store is away")
        real(file, data)

    monkeypatch.setattr(storage, "replace", replace)
    with DriverLease(storage) as lease:
        fail.set()
        time.sleep(0.35)
        with pytest.raises(StoreError, match="away"):
            lease.check()
        fail.clear()
        before = storage.read(LEASE_FILE)
        time.sleep(0.35)
        assert storage.read(LEASE_FILE) != before
        lease.check()
    assert "cannot write the heartbeat" in caplog.text


def test_two_drivers_do_not_create_one_run_at_once(url: str, make: Any) -> None:
    with DriverLease(Storage(url)):
        with pytest.raises(RunDirectoryError, match="is in use by"):
            RunDirectory.create_or_open(url, make.identity(), make.units(2))
    assert RunDirectory.create_or_open(url, make.identity(), make.units(2)).created


def test_readers_take_no_lease(open_run: Opener, make: Any) -> None:
    run = open_run()
    with run.committing():
        make.commit_unit(run, run.plan()[0])
        reader = RunDirectory.open(run.url)
        assert reader.commits.load().pairs == 4 and not reader.commits.may_commit
