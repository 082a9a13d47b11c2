import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smoothcert.errors import RunDirectoryError, StoreError
from smoothcert.store import Commit, CommitLog, PartFile, RunDirectory, new_attempt
from smoothcert.store.lease import DriverLease

Opener = Callable[..., RunDirectory]
HERE = Path(__file__).parent


def visible(run: RunDirectory) -> dict[str, str]:
    """Attempt of every visible row by pair, read from the committed files one by one; fails on a double."""
    import pyarrow.parquet as pq

    committed = run.commits.load()
    hidden = {(row["unit_id"], row["pair_id"]) for row in committed.hidden.to_pylist()}
    found: dict[str, str] = {}
    for file in committed.files("certificates"):
        with run.storage.open_input(file) as stream:
            for row in pq.read_table(stream).to_pylist():
                if (row["unit_id"], row["pair_id"]) not in hidden:
                    assert row["pair_id"] not in found, "a pair shows twice"
                    found[row["pair_id"]] = row["attempt"]
    assert len(found) == committed.pairs
    return found


def test_the_first_attempt_counts_and_stays(open_run: Opener, make: Any) -> None:
    run = open_run()
    unit = run.plan()[0]
    first, second = (make.attempt_unit(run, unit.unit_id, make.unit_rows(unit)) for _ in range(2))
    assert run.commits.commit(first)
    assert not run.commits.commit(second)
    assert run.commits.commit(first), "a repeated request is not a loss"
    assert set(visible(run).values()) == {first.attempt}
    assert run.commits.unit_ids() == {unit.unit_id}


def test_it_is_read_as_it_was_written(open_run: Opener, make: Any) -> None:
    run = open_run()
    unit = run.plan()[0]
    commit = make.attempt_unit(run, unit.unit_id, make.unit_rows(unit))
    run.commits.commit(commit)
    text = run.storage.read(f"commits/{unit.unit_id}.json")
    assert Commit.from_json(text, "x") == commit
    committed = run.commits.load()
    assert (committed.pairs, committed.draws, committed.unfolded) == (4, 116 * 4, 1)
    assert committed.parts("certificates") == list(commit.parts)
    assert committed.parts("attacks") == []


def test_nothing_is_committed_at_first(open_run: Opener) -> None:
    run = open_run()
    committed = run.commits.load()
    assert (len(committed), committed.pairs, committed.draws) == (0, 0, 0)
    assert committed.files("certificates") == [] and committed.hidden.num_rows == 0
    assert list(run.pending()) == run.plan()
    assert not run.commits.fold(min_new=0)


def test_of_many_attempts_at_once_one_counts(open_run: Opener, make: Any) -> None:
    run = open_run(units=5)
    barrier = threading.Barrier(6)
    won: dict[str, list[str]] = {unit.unit_id: [] for unit in run.plan()}

    def work() -> None:
        mine = RunDirectory.open(run.url)
        barrier.wait()
        for unit in make.units(5):
            commit = make.attempt_unit(mine, unit.unit_id, make.unit_rows(unit))
            if mine.commits.commit(commit):
                won[unit.unit_id].append(commit.attempt)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(attempts) == 1 for attempts in won.values())
    attempts = visible(run)
    assert len(attempts) == 20
    assert set(attempts.values()) == {attempt for [attempt] in won.values()}


def test_pending_is_the_plan_without_what_is_committed(open_run: Opener, make: Any) -> None:
    run = open_run(units=6)
    for i in (1, 4):
        make.commit_unit(run, run.plan()[i])
    assert [unit.unit_id for unit in run.pending()] == [f"u{i:05d}-0" for i in (0, 2, 3, 5)]


# splitting


def test_a_split_unit_is_closed_and_its_parts_are_pending(open_run: Opener, make: Any) -> None:
    run = open_run(units=3, pairs=4)
    unit = run.plan()[1]
    late = make.attempt_unit(run, unit.unit_id, make.unit_rows(unit))
    halves = [unit.part(4, 6), unit.part(6, 8)]
    assert run.commits.split(unit.unit_id, halves)
    assert not run.commits.commit(late), "an attempt that wakes up later loses"
    assert not run.commits.split(unit.unit_id, [unit.part(4, 5), unit.part(5, 8)])
    quarters = [halves[0].part(4, 5), halves[0].part(5, 6)]
    assert run.commits.split(halves[0].unit_id, quarters)
    plan = run.plan()
    assert list(run.pending()) == [plan[0], *quarters, halves[1], plan[2]]
    for waiting in list(run.pending()):
        assert make.commit_unit(run, waiting)
    assert len(visible(run)) == 12 and list(run.pending()) == []
    assert run.commits.fold(min_new=1)
    assert len(visible(run)) == 12 and list(run.pending()) == []


def test_a_committed_unit_is_not_split(open_run: Opener, make: Any) -> None:
    run = open_run()
    unit = run.plan()[0]
    make.commit_unit(run, unit)
    assert not run.commits.split(unit.unit_id, [unit.part(0, 2), unit.part(2, 4)])
    assert unit.unit_id not in {waiting.unit_id for waiting in run.pending()}


# superseding


def retry(
    run: RunDirectory, make: Any, unit_id: str, pairs: dict[str, tuple[str, ...]], when: float
) -> Commit:
    rows = [make.ok_row(unit_id, pair) for names in pairs.values() for pair in names]
    return make.attempt_unit(run, unit_id, rows, supersedes=pairs, committed_at=when)


def test_retried_pairs_show_their_new_rows_only(open_run: Opener, make: Any) -> None:
    run = open_run(units=3, pairs=4)
    for unit in run.plan():
        make.commit_unit(run, unit)
    before = visible(run)
    again = retry(run, make, "r1-a", {"u00000-0": ("a.parquet#3", "a.parquet#0")}, 10.0)
    assert run.commits.commit(again)
    for _ in range(2):  # unfolded, then folded
        after = visible(run)
        assert set(after) == set(before)
        assert {p for p in after if after[p] != before[p]} == {"a.parquet#3", "a.parquet#0"}
        run.commits.fold(min_new=1)


def test_a_retry_can_be_retried(open_run: Opener, make: Any) -> None:
    run = open_run(units=1)
    make.commit_unit(run, run.plan()[0])
    run.commits.commit(retry(run, make, "r1", {"u00000-0": ("a.parquet#3",)}, 10.0))
    last = retry(run, make, "r2", {"r1": ("a.parquet#3",)}, 11.0)
    run.commits.commit(last)
    assert visible(run)["a.parquet#3"] == last.attempt


def test_two_retries_of_one_pair_show_the_earlier(open_run: Opener, make: Any) -> None:
    run = open_run(units=1)
    make.commit_unit(run, run.plan()[0])
    early = retry(run, make, "r2", {"u00000-0": ("a.parquet#3", "a.parquet#1")}, 10.0)
    late = retry(run, make, "r1", {"u00000-0": ("a.parquet#3", "a.parquet#2")}, 11.0)
    run.commits.commit(late)
    run.commits.commit(early)
    shown = visible(run)
    assert len(shown) == 4
    assert shown["a.parquet#3"] == shown["a.parquet#1"] == early.attempt
    assert shown["a.parquet#2"] == late.attempt


def test_what_is_quarantined_after_retries_that_overlap(open_run: Opener, make: Any) -> None:
    run = open_run(units=1, pairs=40)
    [unit] = run.plan()
    make.commit_unit(run, unit)
    bad = [f"a.parquet#{i}" for i in (3, 13, 23, 33)]
    assert run.commits.load().quarantined == 4
    run.commits.commit(retry(run, make, "r1", {unit.unit_id: (bad[0],)}, 1.0))
    run.commits.commit(retry(run, make, "r2", {unit.unit_id: (bad[0], bad[1])}, 2.0))
    committed = run.commits.load()
    assert (committed.quarantined, committed.pairs, len(visible(run))) == (2, 40, 40)
    # a loser that is quarantined itself
    rows = [make.quarantined_row("r3", bad[1])]
    run.commits.commit(
        make.attempt_unit(run, "r3", rows, supersedes={unit.unit_id: (bad[1],)}, committed_at=3.0)
    )
    committed = run.commits.load()
    assert (committed.quarantined, committed.pairs) == (2, 40)
    # one that counts, and is replaced in turn
    rows = [make.quarantined_row("r4", bad[2])]
    run.commits.commit(
        make.attempt_unit(run, "r4", rows, supersedes={unit.unit_id: (bad[2],)}, committed_at=4.0)
    )
    assert run.commits.load().quarantined == 2
    run.commits.commit(retry(run, make, "r5", {"r4": (bad[2],)}, 5.0))
    assert run.commits.load().quarantined == 1 and len(visible(run)) == 40


@pytest.mark.parametrize("clocks", list(itertools.permutations([1.0, 2.0, 3.0])))
def test_no_clock_shows_a_pair_twice_or_hides_what_was_built_on(
    open_run: Opener, make: Any, clocks: tuple[float, float, float]
) -> None:
    run = open_run(units=1)
    make.commit_unit(run, run.plan()[0])
    pair = ("a.parquet#3",)
    run.commits.commit(retry(run, make, "first", {"u00000-0": pair}, clocks[0]))
    last = retry(run, make, "again", {"first": pair}, clocks[1])
    run.commits.commit(last)
    run.commits.commit(retry(run, make, "rival", {"u00000-0": pair}, clocks[2]))
    assert visible(run)["a.parquet#3"] == last.attempt


# records that contradict themselves


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"parts": (PartFile("certificates", "f", 3, 1),), "ok": 2},
        {"parts": (PartFile("certificates", "f", 1, 1), PartFile("certificates", "g", 1, 1)), "ok": 1},
        {"parts": (PartFile("certificates", "f", 2, 1),), "ok": 2, "supersedes": {"u": ("p",)}},
    ],
)
def test_a_commit_that_contradicts_itself_is_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="u1"):
        Commit(unit_id="u1", attempt="a", **facts)


def test_a_damaged_commit_is_named_with_its_remedy(open_run: Opener, make: Any) -> None:
    run = open_run()
    unit = run.plan()[0]
    make.commit_unit(run, unit)
    for text in (b"{", b"[]", b'{"unit_id": "x"}'):
        run.storage.replace(f"commits/{unit.unit_id}.json", text)
        with pytest.raises(RunDirectoryError, match=f"{unit.unit_id}.json' is damaged") as caught:
            run.commits.load()
        assert "only this unit is repeated" in caught.value.remedy


# manifests


def test_folding_changes_nothing_that_is_seen(open_run: Opener, make: Any) -> None:
    run = open_run(units=6)
    plan = run.plan()
    for unit in plan[:3]:
        make.commit_unit(run, unit)
    before = visible(run)
    assert not run.commits.fold(min_new=4)
    assert run.commits.fold(min_new=3)
    assert visible(run) == before and run.commits.load().unfolded == 0
    make.commit_unit(run, plan[3])
    assert run.commits.load().unfolded == 1 and len(visible(run)) == 16
    assert run.commits.fold(min_new=1)
    assert run.commits.newest_number() == 2 and run.commits.load().unfolded == 0
    late = make.attempt_unit(run, plan[0].unit_id, make.unit_rows(plan[0]))
    assert not run.commits.commit(late), "a folded unit stays closed"
    assert len(visible(run)) == 16


def test_only_one_of_two_folders_makes_the_next_manifest(open_run: Opener, make: Any) -> None:
    run = open_run(units=4)
    for unit in run.plan():
        make.commit_unit(run, unit)
    state = run.commits.load()
    assert run.commits.publish(state.manifest, state.table)
    assert not RunDirectory.open(run.url).commits.publish(state.manifest, state.table)
    assert run.commits.newest_number() == 1


def test_readers_while_committing_and_folding_see_a_growing_whole(open_run: Opener, make: Any) -> None:
    run = open_run(units=25, pairs=2)
    plan = run.plan()
    done = threading.Event()
    sizes: list[int] = []
    errors: list[BaseException] = []

    def read() -> None:
        mine = RunDirectory.open(run.url)
        try:
            while not done.is_set():
                sizes.append(len(visible(mine)))
        except BaseException as exc:
            errors.append(exc)

    def fold() -> None:
        mine = RunDirectory.open(run.url)
        while not done.is_set():
            mine.commits.fold(min_new=5)

    threads = [threading.Thread(target=target) for target in (read, fold, fold)]
    for thread in threads:
        thread.start()
    for unit in plan:
        make.commit_unit(run, unit)
    done.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert sizes == sorted(sizes) and all(size % 2 == 0 for size in sizes)
    assert len(visible(run)) == 50


# a single committer


def test_without_exclusive_creation_workers_hand_over(open_run: Opener, make: Any, quick_lease: None) -> None:
    run = open_run()
    unit = run.plan()[0]
    worker = CommitLog(run.storage, exclusive=False)
    first, second = (make.attempt_unit(run, unit.unit_id, make.unit_rows(unit)) for _ in range(2))
    with DriverLease(run.storage) as lease:
        driver = CommitLog(run.storage, exclusive=False, lease=lease)
        assert not worker.may_commit and driver.may_commit
        with pytest.raises(StoreError, match="cannot be committed by a worker"):
            worker.commit(first)
        assert driver.commit(first) and not driver.commit(second) and driver.commit(first)
        assert driver.fold(min_new=1)
    with pytest.raises(StoreError, match="let the driver"):
        worker.publish(1, worker.load().table)
    assert set(visible(run).values()) == {first.attempt}


def test_without_exclusive_creation_who_holds_the_lease_is_the_driver(
    open_run: Opener, monkeypatch: pytest.MonkeyPatch, quick_lease: None
) -> None:
    run = open_run()
    monkeypatch.setattr(run.storage, "supports_exclusive_create", lambda directory: False)
    assert not run.commits.may_commit
    with run.committing():
        assert run.commits.may_commit and run.storage.exists("driver.json")
        with run.committing():
            assert run.commits.may_commit
        assert run.commits.may_commit
    assert not run.commits.may_commit and not run.storage.exists("driver.json")


def test_with_exclusive_creation_there_is_no_lease(open_run: Opener) -> None:
    run = open_run()
    with run.committing():
        assert run.commits.may_commit and not run.storage.exists("driver.json")


# crashes


def crash(run: RunDirectory, action: str) -> int:
    result = subprocess.run(
        [sys.executable, str(HERE / "crash_script.py"), run.url, action],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    print("died:", result.stdout)
    return int(json.loads(result.stdout)["died"])


@pytest.fixture
def local_run(tmp_path: Path, make: Any) -> RunDirectory:
    return RunDirectory.create_or_open(tmp_path / "a run", make.identity(), make.units(60))


def test_a_worker_killed_at_any_step_of_a_commit(local_run: RunDirectory, make: Any) -> None:
    died = crash(local_run, "commit")
    assert died >= 8, "fewer steps than a part and a commit have: the crashes missed them"
    shown = visible(local_run)
    closed = local_run.commits.unit_ids()
    assert len(closed) >= 2, "a crash after the link must leave the commit, and the last child got through"
    assert len(shown) == 4 * len(closed), "a unit is there with all its rows or with none"
    for unit in list(local_run.pending())[: died + 1]:
        assert make.commit_unit(local_run, unit), "what a dead worker left does not stand in the way"
    for pair, attempt in shown.items():
        assert visible(local_run)[pair] == attempt, "what was committed stays"
        break


def test_a_driver_killed_at_any_step_of_creation(local_run: RunDirectory, make: Any) -> None:
    died = crash(local_run, "create")
    assert died >= 6
    for number in range(1, died + 2):
        again = RunDirectory.create_or_open(f"{local_run.url}/{number}", make.identity(), make.units(3))
        assert again.plan() == make.units(3)
        assert again.storage.exists("job.yaml")


def test_a_driver_killed_at_any_step_of_folding(local_run: RunDirectory, make: Any) -> None:
    for unit in local_run.plan()[:5]:
        make.commit_unit(local_run, unit)
    before = visible(local_run)
    assert crash(local_run, "fold") >= 4
    assert visible(local_run) == before
    assert local_run.commits.newest_number() == 1 and local_run.commits.load().unfolded == 0


def test_a_full_disk_at_any_write_commits_nothing_and_a_later_attempt_works(
    local_run: RunDirectory, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    real = os.fsync
    left = 0

    def filling(handle: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", filling)
    unit = local_run.plan()[0]
    failures = 0
    for allowed in range(20):
        left = allowed
        try:
            done = make.commit_unit(local_run, unit)
        except StoreError as exc:
            failures += 1
            left = 10
            assert "full" in str(exc)
            assert local_run.commits.unit_ids() == set()
            continue
        assert done
        break
    assert failures >= 2 and len(visible(local_run)) == 4


def test_a_new_attempt_has_a_new_name() -> None:
    assert len({new_attempt() for _ in range(1000)}) == 1000
