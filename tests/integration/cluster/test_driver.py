"""Drivers that die, are told to stop, or are two. What a death at each single system call of a commit leaves is tested
in tests/unit/store/test_commits.py.
"""

import signal
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(290)


def test_a_driver_killed_at_a_random_moment(driver_process, check, tools, seed):
    first = driver_process()
    tools.until(lambda: tools.workers_of(first.url) or first.process.poll() is not None)
    time.sleep(tools.random(seed).uniform(0, 2.0))
    workers = tools.workers_of(first.url)
    first.process.kill()
    assert first.end() == -signal.SIGKILL
    tools.until(lambda: not any(map(tools.alive, workers)))
    second = driver_process("pace_s=0.0", workers=1)
    assert second.end() == 0, second.text
    check(first.url)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_gracefully(driver_process, check, tools, number):
    first = driver_process("pace_s=0.1", grace_s=60)
    tools.until(lambda: tools.workers_of(first.url) or first.process.poll() is not None)
    first.process.send_signal(number)
    assert first.end() == 128 + number, first.text
    assert 0 < tools.commits_of(first.url) < 8, "units in flight were finished, no other was begun"
    if number == signal.SIGTERM:
        tools.until(lambda: not tools.workers_of(first.url))
        hasty = driver_process("pace_s=1.0", workers=1, grace_s=60)
        tools.until(lambda: tools.workers_of(first.url) or hasty.process.poll() is not None)
        hasty.process.send_signal(signal.SIGINT)
        tools.until(lambda: "stopping: waiting for units" in hasty.text)
        hasty.process.send_signal(signal.SIGINT)
        assert hasty.end() == 130 and "quitting now" in hasty.text, hasty.text
        second = driver_process("pace_s=0.0", kind="local")
        assert second.end() == 0, second.text
        check(first.url)


@pytest.mark.parametrize(
    ("fault", "error"),
    [("oom", "OutOfMemoryError"), pytest.param("exit", "WorkerKilledError", marks=pytest.mark.slow)],
)
def test_two_drivers_on_one_run(driver_process, check, tools, fault, error, seed):
    """Both on one cluster; with ``exit`` both split the same unit."""
    drivers = []
    for wait_s in (0.0, tools.random(seed).uniform(0, 2.0)):
        time.sleep(wait_s)
        drivers.append(driver_process(f"pace_s=0.01, on_bright={fault!r}", workers=1))
    assert [driver.end() for driver in drivers] == [0, 0], [driver.text for driver in drivers]
    check(drivers[0].url, {tools.bright_id: error})
    assert Path(drivers[0].url, "summary.json").exists()
