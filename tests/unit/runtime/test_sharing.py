"""Two drivers on one run: the second helps and says so; no pair is done twice, and few units are worked on twice."""

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from smoothcert.datasets import UnitSpec, write_synthetic
from smoothcert.encoders import KnownEncoder
from smoothcert.job import parse_job
from smoothcert.runtime import sharing
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor
from smoothcert.runtime.results import UnitResult
from smoothcert.sql import Query
from smoothcert.store.events import DRIVER, EventLog

JOB = """
name: shared
data: {{format: parquet, uri: "{data}"}}
encoder: {{model: "bundled:digits-clip", slots: 4, chunk: 8, threads: 1}}
certify: {{sigma: 0.25, pilot_draws: 8, max_draws: 24, radii: [0.1]}}
executor: {{pairs_per_unit: 2, units_in_flight: 1}}
output: {{runs: "{runs}"}}
tracking: {{enabled: false}}
"""


class Slow(KnownEncoder):
    """A forward pass takes a hundredth of a second, so that two drivers are at work at the same time."""

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        time.sleep(0.01)
        return super()._image_features(pixels)


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    torch.set_num_threads(1)
    write_synthetic(str(tmp_path / "data"), "parquet", pairs=60, pairs_per_shard=60, size=8, seed=1)
    text = JOB.format(data=tmp_path / "data", runs=tmp_path / "runs")
    return Driver(parse_job(text), Slow.rotating(1.0, input_size=(8, 8)))


def test_the_second_driver_helps_and_says_so(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sharing, "_LOOK_S", 0.05)
    second = Driver(driver.asked, driver.encoder)
    done: dict[str, Counter[str]] = {"first": Counter(), "second": Counter()}
    begun = threading.Event()

    def heard(name: str, result: UnitResult) -> None:
        done[name][result.unit_id] += 1
        begun.set()

    first = threading.Thread(
        target=driver.work, args=("certification", Monitor(lambda result: heard("first", result)))
    )
    with caplog.at_level(logging.WARNING, "smoothcert.runtime.sharing"):
        first.start()
        assert begun.wait(60)
        # both drivers are this process; to each other they are two
        monkeypatch.setattr(sharing, "worker_name", lambda: "elsewhere:2")
        report = second.work("certification", Monitor(lambda result: heard("second", result)))
        first.join(60)
    assert report.missing == 0 and not first.is_alive()
    assert f"{socket.gethostname()}:{os.getpid()} also works on this run: this driver helps" in caplog.text
    with Query([driver.run]) as query:
        assert query.sql(
            "SELECT count(*) AS n, count(DISTINCT pair_id) AS pairs FROM certificates"
        ).to_pylist() == [{"n": 60, "pairs": 60}]
    both = set(done["first"]) & set(done["second"])
    assert len(done["second"]) > 5 and set(done["first"]) | set(done["second"]) == {
        unit.unit_id for unit in driver.plan.units
    }
    assert len(both) <= 8, "those in flight at both, and what is committed between two looks"


def test_a_driver_that_died_without_a_word_is_no_other_driver(driver: Driver) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = socket.gethostname()
    for name in (f"{host}:{gone.pid}", f"{host}:{os.getpid()}", f"{host}:{os.getppid()}", "elsewhere:1"):
        log = EventLog(driver.run.storage, DRIVER + name)
        log.say("begin", now=True)
        log.close()
    found = {each.worker for each in sharing.other_drivers(driver.run)}
    assert found == {f"{DRIVER}{host}:{os.getppid()}", f"{DRIVER}elsewhere:1"}


def test_units_that_others_closed_are_not_handed_out() -> None:
    units = [UnitSpec(f"u{i}", "f", i, i + 1) for i in range(6)]
    now, looks = [0.0], [0]

    def closed() -> set[str]:
        looks[0] += 1
        now[0] += 0.5  # listing takes time, so the next one is far away
        return {"u2", "u4"}

    taken = []
    for unit in sharing.still_open(units, closed, lambda: now[0]):
        taken.append(unit.unit_id)
        now[0] += 2.0
    assert taken == ["u0", "u1", "u3", "u5"] and looks == [1]


def test_every_driver_goes_its_own_way_and_leaves_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    units = [UnitSpec(f"u{i}", "f", i, i + 1) for i in range(40)]
    ways = []
    for name in ("a:1", "b:1"):
        monkeypatch.setattr(sharing, "worker_name", lambda name=name: name)
        ways.append([unit.unit_id for unit in sharing.elsewhere(units)])
    assert ways[0] != ways[1] and set(ways[0]) == set(ways[1]) == {unit.unit_id for unit in units}
