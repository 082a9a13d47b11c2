import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smoothcert.errors import StoreError
from smoothcert.storage import Storage, steady


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "WAITS_S", (0.0, 0.0))


def race(count: int, act: Callable[[int], Any]) -> list[Any]:
    """Results of ``act(0..count-1)`` in threads that start together."""
    results: list[Any] = [None] * count
    barrier = threading.Barrier(count)

    def run(i: int) -> None:
        barrier.wait()
        results[i] = act(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_what_is_written_is_read(url: str) -> None:
    storage = Storage(url)
    assert storage.read_if_present("a/b.json") is None
    assert storage.names("a") == [] and storage.entries("a") == []
    assert storage.create("a/b.json", b"one")
    storage.replace("a/c.json", b"two")
    storage.replace("a/c.json", b"three")
    assert storage.read("a/b.json") == b"one" and storage.read_if_present("a/c.json") == b"three"
    assert storage.names("a") == ["b.json", "c.json"]
    assert [(e.name, e.size) for e in storage.entries("a")] == [("b.json", 3), ("c.json", 5)]
    assert all(entry.modified is not None and entry.modified.tzinfo for entry in storage.entries("a"))
    assert dict(storage.read_many(["a/c.json", "a/b.json"])) == {"a/b.json": b"one", "a/c.json": b"three"}
    assert storage.size("a/c.json") == 5 and storage.exists("a/c.json")
    storage.remove("a/b.json")
    storage.remove("a/b.json")
    assert storage.names("a") == ["c.json"]
    with storage.open_output("big/x.bin") as stream:
        stream.write(b"12345")
    with storage.open_input("big/x.bin") as stream:
        stream.seek(3)
        assert stream.read() == b"45"


def test_only_the_first_creates(url: str) -> None:
    storage = Storage(url)
    assert storage.create("x", b"one")
    assert not storage.create("x", b"two")
    assert storage.create("x", b"one"), "a repeated request is the same try"
    assert storage.read("x") == b"one"
    assert storage.names("") == ["x"]


def test_of_many_at_once_one_creates(url: str) -> None:
    for attempt in range(20):
        name = f"commits/{attempt}"
        won = race(8, lambda i, name=name: Storage(url).create(name, b"%d" % i))
        assert won.count(True) == 1
        assert Storage(url).read(name) == b"%d" % won.index(True)


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    texts = [b"a" * 200_000, b"b" * 300_000]
    storage.replace("x", texts[0])

    def act(i: int) -> set[bytes]:
        if i == 0:
            for round in range(100):
                storage.replace("x", texts[round % 2])
            return set()
        return {storage.read("x") for _ in range(300)}

    seen = set().union(*race(3, act))
    assert seen <= set(texts)


def test_local_urls_and_paths_mean_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Storage("a b").create("x", b"1")
    for same in (tmp_path / "a b", f"file://{tmp_path}/a b", str(tmp_path / "a b") + "/"):
        assert Storage(same).read("x") == b"1"
        assert Storage(same).url == str(tmp_path / "a b")


@pytest.mark.parametrize(
    "name", ["plain", "with space", "per%cent", "hash#mark", "star*[x]?", "zwölf", "a::b"]
)
def test_odd_names_are_just_names(tmp_path: Path, name: str) -> None:
    storage = Storage(tmp_path / name)
    storage.create("commits/u.json", b"1")
    assert storage.names("commits") == ["u.json"]
    assert dict(storage.read_many(["commits/u.json"])) == {"commits/u.json": b"1"}
    assert (tmp_path / name / "commits" / "u.json").read_bytes() == b"1"


def test_exclusive_creation_is_probed(url: str) -> None:
    storage = Storage(url)
    assert storage.supports_exclusive_create("commits")
    assert storage.names("commits") == []


def test_a_disk_without_links_has_a_single_committer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    assert not Storage(tmp_path).supports_exclusive_create()
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_overwrites_has_a_single_committer(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(url)

    def careless(path: str, data: bytes) -> bool:
        storage._replace(path, data)
        return True

    monkeypatch.setattr(storage, "_create_local", careless)
    monkeypatch.setattr(storage, "_create_memory", careless)
    assert not storage.supports_exclusive_create()


def test_a_protocol_that_only_imitates_is_not_believed(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.local, storage._protocol = False, "sftp"
    assert not storage.supports_exclusive_create()


def test_an_unwritable_place_is_an_error_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    storage = Storage(tmp_path / "file" / "run")
    with pytest.raises(StoreError, match="file/run") as caught:
        storage.create("x", b"1")
    assert caught.value.remedy


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (storage.create, storage.replace):
        with pytest.raises(StoreError, match="disk or quota is full"):
            write("commits/u.json", b"1")
    assert list((tmp_path / "commits").iterdir()) == []


def test_a_passing_failure_is_tried_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(url)
    storage.create("x", b"1")
    calls = []
    real = storage._bytes_of

    def flaky(path: str) -> bytes:
        calls.append(path)
        if len(calls) < 3:
            raise TimeoutError("slow")
        return real(path)

    monkeypatch.setattr(storage, "_bytes_of", flaky)
    assert storage.read("x") == b"1" and len(calls) == 3


def test_a_lasting_failure_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(url)

    def dead(path: str) -> bytes:
        raise TimeoutError("slow")

    monkeypatch.setattr(storage, "_bytes_of", dead)
    with pytest.raises(StoreError, match="did not answer in time"):
        storage.read("x")


def test_a_link_whose_answer_was_lost_counts_as_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def forgetful(source: str, target: str) -> None:
        real(source, target)
        raise FileExistsError(target)

    monkeypatch.setattr(os, "link", forgetful)
    assert Storage(tmp_path).create("x", b"1")


def test_a_missing_library_is_named() -> None:
    with pytest.raises(StoreError, match="not a URL that can be opened"):
        Storage("nosuchprotocol://x/y")
