"""Reads of a store that fails or cuts its answers."""

import errno
import time

import pytest
from fsspec.config import conf
from fsspec.implementations.memory import MemoryFileSystem

from smoothcert.storage import steady, waiting
from smoothcert.storage.options import patience
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
            steadily(lambda error=error: fail(error), "x")
        assert len(tries) == count


def test_nothing_there_is_not_a_failure(stored, monkeypatch):
    assert info_of(stored, "/steady/none") is None
    assert info_of(stored, "/steady/x")["size"] == 1000

    def dead(self, path):
        raise TimeoutError("slow")

    monkeypatch.setattr(MemoryFileSystem, "info", dead)
    with pytest.raises(TimeoutError):
        info_of(stored, "/steady/x")


def say_soon(monkeypatch, every_s):
    """Short silences, for the one thread that speaks too: it may be asleep for as long as it looked away before."""
    monkeypatch.setattr(waiting, "SAY_FIRST_S", 0.05)
    monkeypatch.setattr(waiting, "SAY_EVERY_S", every_s)
    time.sleep(1.2 * waiting._LOOK_EVERY_S)


def test_a_store_that_takes_long_is_told_and_one_that_took_enough_is_not_asked_again(monkeypatch, caplog):
    say_soon(monkeypatch, every_s=0.1)
    tries = []

    def slow():
        tries.append(1)
        time.sleep(0.3)
        raise TimeoutError("mute")

    monkeypatch.setattr(steady, "ENOUGH_S", 0.5)
    with pytest.raises(TimeoutError):
        steadily(slow, "s3://KEY:SECRET@bucket/runs/x")
    assert len(tries) == 2, "the third would have been one too many"
    said = [record.getMessage() for record in caplog.records]
    assert len(said) >= 2 and all("waiting for the store of 's3://" in line for line in said)
    assert "at most about 180 s" in said[0] and "SECRET" not in caplog.text
    caplog.clear()
    assert steadily(lambda: 1, "x") == 1
    time.sleep(0.3)
    assert not caplog.records


def test_waits_for_the_same_are_told_once(monkeypatch, caplog):
    say_soon(monkeypatch, every_s=60.0)
    with waiting.waiting_aloud("for a thing", 1.0), waiting.waiting_aloud("for a thing", 1.0):
        end = time.monotonic() + 30
        while not caplog.records and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.3)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["waiting for a thing"]


def test_s3_itself_asks_twice_unless_fsspec_is_configured(monkeypatch):
    assert patience("s3") == {"config_kwargs": {"retries": {"total_max_attempts": 2}}}
    assert patience("file") == patience("memory") == {}
    monkeypatch.setitem(conf, "s3", {"config_kwargs": {"connect_timeout": 1}})
    assert patience("s3") == {}
