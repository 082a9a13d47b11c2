import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import smoothcert.store.compact as compaction
from smoothcert.errors import JobError, QueryError, RunDirectoryError, StoreError
from smoothcert.sql import open_query
from smoothcert.storage import Storage
from smoothcert.store import CERTIFICATES, RunDirectory, new_attempt
from smoothcert.store.compact import compact
from smoothcert.store.gc import collect

Opener = Callable[..., RunDirectory]
HERE = Path(__file__).parent
NOW = timedelta(0)
HOUR = timedelta(hours=1)


def shown(run: RunDirectory) -> list[tuple[str, str]]:
    """Pair and attempt of every visible row; a pair that shows twice fails."""
    with open_query([run.url]) as query:
        table = query.sql("SELECT pair_id, attempt FROM certificates ORDER BY 1, 2")
    pairs = table["pair_id"].to_pylist()
    assert len(set(pairs)) == len(pairs)
    return list(zip(pairs, table["attempt"].to_pylist(), strict=True))


def fill(run: RunDirectory, make: Any, units: slice = slice(None)) -> None:
    for unit in run.plan()[units]:
        assert make.commit_unit(run, unit)


def age(run: RunDirectory, by: timedelta) -> None:
    """Make every file of a local run look older."""
    then = (datetime.now(UTC) - by).timestamp()
    for path in Path(run.url).rglob("*"):
        os.utime(path, (then, then))


@pytest.fixture
def local_run(tmp_path: Path, make: Any) -> RunDirectory:
    return RunDirectory.create_or_open(tmp_path / "a run", make.identity(), make.units(6))


# compact


def test_compaction_moves_rows_and_changes_none(open_run: Opener, make: Any) -> None:
    run = open_run(units=6)
    fill(run, make, slice(4))
    before = shown(run)
    report = compact(run)
    assert (report.files_before, report.files_after) == (4, 1)
    assert shown(run) == before and len(run.commits.load().files("certificates")) == 1
    fill(run, make, slice(4, 6))
    assert compact(run).files_after == 1, "what was merged is merged again while it is small"
    assert len(shown(run)) == 24 and set(before) < set(shown(run))
    assert compact(run) == compact(run), "one file is left alone"


def test_large_files_are_left_alone(open_run: Opener, make: Any) -> None:
    run = open_run(units=6, pairs=4)
    fill(run, make)
    assert compact(run, target_rows=8).files_after == 6
    assert compact(run, target_rows=9).files_after == 2
    assert len(shown(run)) == 24


def test_nothing_to_compact_is_no_error(open_run: Opener, make: Any) -> None:
    run = open_run()
    assert compact(run).files_after == 0
    fill(run, make, slice(1))
    assert compact(run).files_after == 1


def test_retries_survive_compaction(open_run: Opener, make: Any) -> None:
    run = open_run(units=2)
    fill(run, make)
    again = make.attempt_unit(
        run, "r1", [make.ok_row("r1", "a.parquet#3")], supersedes={"u00000-0": ("a.parquet#3",)}
    )
    run.commits.commit(again)
    before = shown(run)
    assert compact(run).files_after == 1
    assert shown(run) == before and ("a.parquet#3", again.attempt) in before


def test_a_part_that_lost_rows_stops_the_compaction(open_run: Opener, make: Any) -> None:
    run = open_run(units=2)
    fill(run, make)
    first, second = run.commits.load().files("certificates")
    swapped = make.attempt_unit(run, "other", [make.ok_row("other", "x")]).parts[0]
    run.storage.replace(first, run.storage.read(swapped.file))
    with pytest.raises(RunDirectoryError, match="holds 1 rows where 4 were committed"):
        compact(run)
    assert run.commits.load().files("certificates") == [first, second]


def test_two_compactions_of_overlapping_files_show_no_row_twice(open_run: Opener, make: Any) -> None:
    run = open_run(units=3)
    fill(run, make, slice(2))
    # the second starts from an older state, in which there were two files; the first merges three
    groups = list(compaction._groups(compaction._files(run.commits.load().parts("certificates")), 100))
    late = [
        (frozenset(p.file for p in group), compaction._merge(run, compaction.TABLES["certificates"], group))
        for group in groups
    ]
    fill(run, make, slice(2, 3))
    plan = run.plan()
    state = run.commits.load()
    pair = [part for part in compaction._files(state.parts("certificates"))][1:]
    other = [
        (frozenset(p.file for p in pair), compaction._merge(run, compaction.TABLES["certificates"], pair))
    ]
    assert run.commits.publish(state.manifest, compaction._moved(state, other))
    state = run.commits.load()
    assert run.commits.publish(state.manifest, compaction._moved(state, late))
    assert len(shown(run)) == 4 * len(plan)


def test_readers_see_every_row_once_during_compaction(open_run: Opener, make: Any) -> None:
    run = open_run(units=24, pairs=2)
    fill(run, make)
    done = threading.Event()
    counts: list[int] = []
    errors: list[BaseException] = []

    def read() -> None:
        try:
            while not done.is_set():
                counts.append(len(shown(RunDirectory.open(run.url))))
        except BaseException as exc:
            errors.append(exc)

    reader = threading.Thread(target=read)
    reader.start()
    for target in (6, 12, 24, 100):
        compact(run, target_rows=target)
    done.set()
    reader.join()
    assert not errors and set(counts) == {48}


def test_a_process_killed_at_any_step_of_compaction(local_run: RunDirectory, make: Any) -> None:
    fill(local_run, make)
    before = shown(local_run)
    result = subprocess.run(
        [sys.executable, str(HERE / "crash_script.py"), local_run.url, "compact"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["died"] >= 4
    assert shown(local_run) == before and len(local_run.commits.load().files("certificates")) == 1
    age(local_run, HOUR)
    collect(local_run, grace=NOW, nothing_else_runs=True)
    assert shown(local_run) == before


# gc


def test_what_was_fixed_at_the_start_stays_whatever_its_age(open_run: Opener, make: Any) -> None:
    run = open_run(units=2)
    run.write_document("plan/pool.json", b"[]")
    collect(run, grace=-HOUR, nothing_else_runs=True)
    assert run.read_document("plan/pool.json") == b"[]"
    assert run.plan()


def test_losers_go_and_winners_stay(open_run: Opener, make: Any) -> None:
    run = open_run(units=4)
    fill(run, make)
    lost = make.attempt_unit(run, "u00000-0", make.unit_rows(run.plan()[0]))
    assert not run.commits.commit(lost)
    before = shown(run)
    assert collect(run) == [], "young files stay"
    told = collect(run, grace=-HOUR, nothing_else_runs=True, dry_run=True)
    assert [item.file for item in told] == [lost.parts[0].file] and told[0].size_bytes == lost.parts[
        0
    ].size_bytes
    assert run.storage.exists(lost.parts[0].file)
    assert collect(run, grace=-HOUR, nothing_else_runs=True) == told
    assert not run.storage.exists(lost.parts[0].file)
    assert shown(run) == before and collect(run, grace=-HOUR, nothing_else_runs=True) == []


def test_what_a_killed_process_left_goes(local_run: RunDirectory, make: Any) -> None:
    fill(local_run, make)
    left = ["commits/.u1.json.ab.tmp", "commits/probe-1", "manifests/.x.tmp", "plan/other.parquet", "probe-2"]
    for name in left:
        local_run.storage.replace(name, b"x")
    before = shown(local_run)
    assert sorted(item.file for item in collect(local_run, grace=-HOUR, nothing_else_runs=True)) == sorted(
        left
    )
    assert shown(local_run) == before and local_run.plan() == make.units(6)


def test_compacted_parts_stay_while_a_reader_may_be_at_them(local_run: RunDirectory, make: Any) -> None:
    fill(local_run, make)
    small = local_run.commits.load().files("certificates")
    with open_query([local_run.url]) as early:
        compact(local_run)
        age_of_parts = (datetime.now(UTC) - 3 * HOUR).timestamp()
        for file in small:
            os.utime(Path(local_run.url) / file, (age_of_parts, age_of_parts))
        assert collect(local_run, grace=HOUR) == [], "the manifest is too young"
        assert early.sql("SELECT avg(draws) FROM certificates").num_rows == 1
    age(local_run, 2 * HOUR)
    assert sorted(item.file for item in collect(local_run, grace=HOUR)) == small
    assert len(shown(local_run)) == 24


def test_old_manifests_go_when_their_successor_is_old(local_run: RunDirectory, make: Any) -> None:
    fill(local_run, make, slice(3))
    local_run.commits.fold(min_new=1)
    fill(local_run, make, slice(3, 6))
    local_run.commits.fold(min_new=1)
    compact(local_run)
    before = shown(local_run)
    age(local_run, 2 * HOUR)
    gone = {item.file for item in collect(local_run, grace=HOUR)}
    assert {"manifests/00000001.parquet", "manifests/00000002.parquet"} < gone and len(gone) == 8
    assert shown(local_run) == before
    assert local_run.commits.newest_number() == 3
    late = make.attempt_unit(local_run, "u00000-0", make.unit_rows(local_run.plan()[0]))
    assert not local_run.commits.commit(late), "its lock is still there"


def test_an_attempt_whose_part_is_gone_does_not_commit(open_run: Opener, make: Any) -> None:
    run = open_run()
    sleeper = make.attempt_unit(run, "u00000-0", make.unit_rows(run.plan()[0]))
    collect(run, grace=-HOUR, nothing_else_runs=True)
    with pytest.raises(StoreError, match="does not exist"):
        run.commits.commit(sleeper)
    assert run.commits.unit_ids() == set()


@pytest.mark.parametrize("seed", range(3))
def test_no_mixture_of_upkeep_and_work_loses_a_row(url: str, make: Any, seed: int) -> None:
    import random

    random_ = random.Random(seed)
    run = RunDirectory.create_or_open(url, make.identity(), make.units(10, 2))
    waiting = run.plan()
    expected: dict[str, str] = {}
    for _ in range(20):
        action = random_.choice(["commit", "commit", "lose", "fold", "compact", "gc"])
        if action == "commit" and waiting:
            unit = waiting.pop()
            commit = make.attempt_unit(run, unit.unit_id, make.unit_rows(unit))
            assert run.commits.commit(commit)
            expected |= {row["pair_id"]: commit.attempt for row in make.unit_rows(unit)}
        elif action == "lose":
            run.write_rows(
                CERTIFICATES, f"u{random_.randrange(10):05d}-0", new_attempt(), [make.ok_row("u", "stray")]
            )
        elif action == "fold":
            run.commits.fold(min_new=1)
        elif action == "compact":
            compact(run, target_rows=random_.choice([3, 6, 1000]))
        elif action == "gc":
            collect(run, grace=-HOUR, nothing_else_runs=True)
            assert dict(shown(run)) == expected
    assert dict(shown(run)) == expected


# gc at the wrong moment


def files_gone(run: RunDirectory) -> list[str]:
    return [f for f in run.commits.load().files("certificates") if not run.storage.exists(f)]


def test_a_short_grace_is_refused_unless_nothing_else_runs(open_run: Opener, make: Any) -> None:
    run = open_run(units=2)
    fill(run, make)
    for grace in (NOW, HOUR - timedelta(seconds=1)):
        with pytest.raises(JobError, match="grace_s=") as caught:
            collect(run, grace=grace)
        assert "--nothing-else-runs" in caught.value.remedy
    assert collect(run, grace=NOW, dry_run=True) == []
    assert collect(run, grace=HOUR) == []


def test_a_part_deleted_while_it_is_committed_is_told_and_done_again(open_run: Opener, make: Any) -> None:
    run = open_run(units=2)
    first, second = run.plan()
    make.commit_unit(run, first)
    commit = make.attempt_unit(run, second.unit_id, make.unit_rows(second))
    real = run.storage.create

    def create(file: str, data: bytes) -> bool:
        if file.startswith("commits/u"):
            collect(RunDirectory.open(run.url), grace=-HOUR, nothing_else_runs=True)
        return real(file, data)

    run.storage.create = create  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="its rows are missing") as caught:
        run.commits.commit(commit)
    assert f"commits/{second.unit_id}.json" in caught.value.remedy
    with pytest.raises((StoreError, QueryError)), open_query([run.url]) as query:
        query.sql("SELECT count(*), max(pair_id) FROM certificates")
    with pytest.raises(StoreError, match="nothing was deleted"):
        collect(run)
    # the remedy helps before and after the commit was folded into a manifest
    assert run.commits.fold(min_new=1)
    run.storage.remove(f"commits/{second.unit_id}.json")
    assert list(run.pending()) == [second] and run.commits.load().reopened == {second.unit_id}
    assert len(shown(run)) == 4
    assert run.commits.resume().reopened == frozenset()
    run.storage.create = real  # type: ignore[method-assign]
    make.commit_unit(run, second)
    assert len(shown(run)) == 8 and list(run.pending()) == []
    collect(run)


def test_of_a_merged_file_all_units_are_done_again_or_none(open_run: Opener, make: Any) -> None:
    run = open_run(units=3)
    fill(run, make)
    assert compact(run).files_after == 1
    [merged] = run.commits.load().files("certificates")
    first, second, third = run.plan()
    run.storage.remove(f"commits/{first.unit_id}.json")
    for read in (run.commits.load, run.commits.resume, lambda: shown(run)):
        with pytest.raises(RunDirectoryError, match="share .* with 2 units") as caught:
            read()
        assert second.unit_id in caught.value.remedy and third.unit_id in caught.value.remedy
    # the file is lost: gc names all of them, and with all of them deleted the run goes on
    run.storage.remove(merged)
    for unit in (second, third):
        run.storage.remove(f"commits/{unit.unit_id}.json")
    assert run.commits.resume().pairs == 0
    fill(run, make)
    assert len(shown(run)) == 12


def test_a_merged_file_deleted_before_it_counts_stops_the_compaction(
    open_run: Opener, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(units=6)
    fill(run, make)
    before = shown(run)
    real = run.commits.load
    loads = 0

    def load() -> Any:
        nonlocal loads
        loads += 1
        if loads == 2:
            collect(RunDirectory.open(run.url), grace=-HOUR, nothing_else_runs=True)
        return real()

    monkeypatch.setattr(run.commits, "load", load)
    with pytest.raises(StoreError, match="was deleted before it was committed"):
        compact(run)
    assert run.commits.newest_number() == 0
    assert shown(RunDirectory.open(run.url)) == before


def test_a_merged_file_deleted_as_it_comes_to_count_leaves_every_row(
    open_run: Opener, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(units=6)
    fill(run, make)
    before = shown(run)
    real = run.commits.publish
    calls = 0

    def publish(previous: int, table: Any) -> bool:
        nonlocal calls
        calls += 1
        if calls == 1:
            collect(RunDirectory.open(run.url), grace=-HOUR, nothing_else_runs=True)
        return real(previous, table)

    monkeypatch.setattr(run.commits, "publish", publish)
    with pytest.raises(StoreError, match="the previous files still count"):
        compact(run)
    assert files_gone(run) == [] and shown(RunDirectory.open(run.url)) == before
    collect(RunDirectory.open(run.url), grace=-HOUR, nothing_else_runs=True)
    assert shown(RunDirectory.open(run.url)) == before
    assert compact(RunDirectory.open(run.url)).files_after == 1


def test_nothing_is_deleted_while_a_committed_file_is_missing(open_run: Opener, make: Any) -> None:
    run = open_run(units=6)
    fill(run, make)
    small = run.commits.load().files("certificates")
    compact(run)
    [merged] = run.commits.load().files("certificates")
    run.storage.remove(merged)
    with pytest.raises(StoreError, match="6 units lack their rows"):
        collect(run, grace=-HOUR, nothing_else_runs=True)
    assert all(run.storage.exists(file) for file in small)


def test_what_workers_left_half_written_goes(local_run: RunDirectory) -> None:
    left = ["plan/.pool.json.ab.tmp", "workers/.host-1-ab.jsonl.cd.tmp"]
    for name in [*left, "workers/host-1-ab.jsonl"]:
        local_run.storage.replace(name, b"x")
    age(local_run, 25 * HOUR)
    assert sorted(item.file for item in collect(local_run)) == left
    assert local_run.storage.exists("workers/host-1-ab.jsonl")


# stores without exclusive creation


def test_compaction_takes_the_lease_or_writes_nothing(
    open_run: Opener, make: Any, monkeypatch: pytest.MonkeyPatch, quick_lease: None
) -> None:
    monkeypatch.setattr(Storage, "supports_exclusive_create", lambda self, directory="": False)
    run = open_run(units=6)
    with run.committing():
        fill(run, make)
        files = run.storage.names("certificates")
        with pytest.raises(RunDirectoryError, match="is in use by the driver"):
            compact(RunDirectory.open(run.url))
        assert run.storage.names("certificates") == files
    assert compact(RunDirectory.open(run.url)).files_after == 1
    assert len(shown(run)) == 24
