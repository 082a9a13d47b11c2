"""Reads of a store that fails or cuts its answers."""

import errno

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from smoothcert.storage import steady
from smoothcert.storage.steady import SteadyFile, info_of, is_transient, read_whole, steadily


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(steady, "WAITS_S", (0.0, 0.0))


@pytest.fixture
def stored():
    """A store with one file of 1,000 bytes."""
    fs = MemoryFileSystem()
    fs.pipe_file("/steady/x", bytes(i % 251 for i in range(1000)))
    yield fs
    fs.rm("/steady", recursive=True)


def test_a_file_reads_like_its_bytes(stored):
    data = stored.cat_file("/steady/x")
    with SteadyFile(stored, "/steady/x") as file:
        assert file.read() == data and file.read(5) == b""
        assert file.seek(-10, 2) == 990 and file.read(100) == data[990:]
        assert file.seek(100) == file.tell() == 100 and file.read(7) == data[100:107]
        assert file.seek(3, 1) == 110 and file.read(1) == data[110:111]
        with pytest.raises(ValueError, match="before the file"):
            file.seek(-1)


def test_it_gives_up_in_the_end(stored, monkeypatch):
    tries = []

    def cut(self, path, start=None, end=None):
        tries.append(path)
        return b"1"

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cut)
    with pytest.raises(OSError, match="1 bytes came where '/steady/x' has 1000") as caught:
        SteadyFile(stored, "/steady/x").read()
    assert is_transient(caught.value) and len(tries) == 3
    with pytest.raises(OSError, match="1 bytes came"):
        read_whole(stored, "/steady/x")


def test_only_passing_failures_are_tried_again():
    tries = []

    def fail(error):
        tries.append(error)
        raise error

    for error, count in [(TimeoutError(), 3), (OSError(errno.ENOSPC, "full"), 1), (KeyError("x"), 1)]:
        tries.clear()
        with pytest.raises(type(error)):
            steadily(lambda error=error: fail(error))
        assert len(tries) == count


def test_nothing_there_is_not_a_failure(stored, monkeypatch):
    assert info_of(stored, "/steady/none") is None
    assert info_of(stored, "/steady/x")["size"] == 1000

    def dead(self, path):
        raise TimeoutError("slow")

    monkeypatch.setattr(MemoryFileSystem, "info", dead)
    with pytest.raises(TimeoutError):
        info_of(stored, "/steady/x")
