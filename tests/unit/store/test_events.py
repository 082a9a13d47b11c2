"""What workers and drivers say: errors outlast heartbeats, nobody waits for the store, the driver is heard too."""

from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path

import pytest

from smoothcert.errors import StoreError
from smoothcert.runtime import driver_log as driver_log_module
from smoothcert.runtime.driver_log import driver_log
from smoothcert.runtime.executor import Monitor
from smoothcert.runtime.progress import Progress
from smoothcert.storage import Storage
from smoothcert.store.events import EventLog, read_workers


class Run:
    """As much of a run directory as a driver's log needs."""

    def __init__(self, storage: Storage, *, exclusive: bool = True) -> None:
        self.storage = storage
        self.exclusive = exclusive


def lines(directory: Path) -> list[dict[str, object]]:
    [file] = (directory / "workers").glob("*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_no_number_of_heartbeats_or_commits_costs_an_error(tmp_path):
    events = EventLog(Storage(tmp_path), "h:1")
    for i in range(5):
        events.say("error", message=f"trouble {i}")
    for i in range(2000):
        events.say("progress", units=["u"], draws=i)
        events.say("commit", unit=f"u{i}")
    events.say("progress", units=["u"], draws=2000, units_done=7)
    events.close()
    kept = lines(tmp_path)
    assert [line["message"] for line in kept if line["event"] == "error"] == [
        f"trouble {i}" for i in range(5)
    ]
    assert [line["event"] for line in kept].count("progress") == 1 and len(kept) == 5 + 200 + 1
    times = [line["time"] for line in kept]
    assert times == sorted(times)
    [state] = read_workers(Storage(tmp_path), now=time.time())
    assert (state.last_trouble, state.draws, state.units_done, state.alive) == ("trouble 4", 2000, 7, True)


def test_errors_are_bounded_too(tmp_path):
    events = EventLog(Storage(tmp_path), "h:1")
    for i in range(500):
        events.say("error", message=str(i))
    events.close()
    assert [line["message"] for line in lines(tmp_path)] == [str(i) for i in range(400, 500)]


class Away:
    """A store that writes nothing until it is back: who waits for it waits for ever."""

    def __init__(self, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.back = threading.Event()
        real = storage.replace

        def replace(file: str, data: bytes) -> None:
            self.back.wait()
            real(file, data)

        monkeypatch.setattr(storage, "replace", replace)


def test_saying_something_never_waits_for_the_store(tmp_path, monkeypatch):
    storage = Storage(tmp_path)
    away = Away(storage, monkeypatch)
    events = EventLog(storage, "h:1", every_s=0.05)
    for i in range(100):
        events.say("progress", now=True, draws=i)
    assert not list(tmp_path.glob("workers/*.jsonl"))
    threading.Timer(0.3, away.back.set).start()
    events.close(timeout_s=60)
    assert away.back.is_set(), "the end waits for the store"
    assert lines(tmp_path)[-1]["draws"] == 99


def test_the_end_is_not_waited_for_long(tmp_path, monkeypatch):
    storage = Storage(tmp_path)
    away = Away(storage, monkeypatch)
    events = EventLog(storage, "h:1")
    events.say("end", now=True)
    events.close(timeout_s=0.2)  # comes back, although the store does not
    assert not list(tmp_path.glob("workers/*.jsonl"))
    away.back.set()


def test_what_could_not_be_written_is_written_later(tmp_path, monkeypatch, caplog):
    storage = Storage(tmp_path)
    real, failures = storage.replace, 3

    def replace(file: str, data: bytes) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise StoreError("the store is away")
        real(file, data)

    monkeypatch.setattr(storage, "replace", replace)
    events = EventLog(storage, "h:1", every_s=0.05)
    events.say("error", message="trouble")
    end = time.monotonic() + 20
    while not list(tmp_path.glob("workers/*.jsonl")):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert lines(tmp_path)[0]["message"] == "trouble"
    assert caplog.text.count("cannot write the event log") == 1
    events.close()


def test_no_credential_of_a_url_is_said(tmp_path):
    events = EventLog(Storage(tmp_path), "h:1")
    events.say(
        "error", message="cannot read 'https://h/x.jpg?sig=SECRET': gone", units=["https://SECRET@h/x"]
    )
    events.close()
    assert "SECRET" not in json.dumps(lines(tmp_path)) and "https://h/x.jpg" in json.dumps(lines(tmp_path))


def test_what_a_driver_logs_is_kept_and_it_counts_as_no_worker(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(driver_log_module, "_BEAT_S", 0.05)
    storage = Storage(tmp_path)
    seen = []
    told = Monitor(lambda result: None, seen.append)
    with pytest.raises(KeyError):
        with driver_log(Run(storage, exclusive=False), told) as monitor:
            monitor.on_progress(Progress(5, 2, 0))
            while not (found := read_workers(storage, now=time.time())):
                time.sleep(0.01)
            [during] = found
            logging.getLogger("smoothcert.runtime.ray_executor").warning("worker %s is lost", "w-1")
            logging.getLogger("smoothcert.runtime.session").error("said by the worker itself")
            logging.getLogger("elsewhere").error("not ours")
            raise KeyError("x")
    logging.getLogger("smoothcert.runtime.ray_executor").warning("too late")
    assert seen == [Progress(5, 2, 0)] and monitor.stop is told.stop
    [state] = read_workers(storage, now=time.time())
    assert during.drives and during.alive and not state.alive
    text = [(line["event"], line.get("message")) for line in lines(tmp_path)]
    assert text[0] == ("begin", None) and text[-1] == ("end", None)
    assert [message for event, message in text if event == "warning"] == ["worker w-1 is lost"]
    assert "commits: by this driver only" in caplog.text
    assert state.last_trouble == "the driver ended: KeyError: 'x'"
    assert next(tmp_path.glob("workers/*")).name.startswith("driver-")


def test_a_driver_on_a_store_with_exclusive_creation_says_so(tmp_path, caplog):
    caplog.set_level(logging.INFO, "smoothcert.runtime")
    with driver_log(Run(Storage(tmp_path)), Monitor(lambda result: None)):
        pass
    assert "commits: by workers" in caplog.text
    [state] = read_workers(Storage(tmp_path), now=time.time())
    assert state.last_trouble is None


def test_how_a_driver_ended_is_kept(tmp_path):
    stop = threading.Event()
    for number, (ending, end) in enumerate((("done", lambda: None), ("stopped", stop.set))):
        storage = Storage(tmp_path / str(number))
        with driver_log(Run(storage), Monitor(lambda result: None, stop=stop)):
            end()
        [state] = read_workers(storage, now=time.time())
        assert (state.ending, state.alive, state.ended) == (ending, False, True)


def test_the_rates_that_a_driver_says_are_those_of_its_monitor(tmp_path):
    storage = Storage(tmp_path)
    with driver_log(Run(storage), Monitor(lambda result: None)) as monitor:
        monitor.on_progress(Progress(0, 0, 0))
        time.sleep(0.5)
        monitor.on_progress(Progress(1000, 10, 0))
    [state] = read_workers(storage, now=time.time())
    assert state.draws_per_s is not None and state.pairs_per_s is not None
    assert 0 < state.draws_per_s <= 2000 and abs(state.draws_per_s - 100 * state.pairs_per_s) < 1e-6


def test_a_worker_that_a_driver_lost_is_lost_until_it_speaks_again(tmp_path):
    storage = Storage(tmp_path)
    worker = EventLog(storage, "h:1")
    worker.say("progress", units=["u1"], draws=5)
    worker.close()
    driver = EventLog(storage, "driver:h:2")
    driver.say("warning", message="lost worker h:1 (died): x", lost="h:1")
    driver.close()
    now = time.time()
    states = {state.worker: state for state in read_workers(storage, now=now)}
    lost = states["h:1"]
    assert (lost.lost, lost.alive, lost.units, lost.draws) == (True, False, (), 5)
    assert lost.describe() == "h:1  lost, 0 units done", "what it held is with others"
    assert states["driver:h:2"].alive and states["driver:h:2"].describe().endswith(", 0 in flight")
    [file] = (tmp_path / "workers").glob("h-1-*.jsonl")
    line = json.loads(file.read_text())
    file.write_text(json.dumps(line | {"time": now + 30.0}) + "\n")
    [again] = [state for state in read_workers(storage, now=now + 31.0) if not state.drives]
    assert (again.lost, again.alive) == (False, True)
