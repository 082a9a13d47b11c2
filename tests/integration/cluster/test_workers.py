"""Workers that are killed, stopped, or ended by the work itself."""

import os
import signal
import time
from pathlib import Path

import pytest

from smoothcert.errors import ExecutorError, SmoothcertError

pytestmark = pytest.mark.timeout(150)


PAIRS_PER_UNIT = {1: 4, 2: 5, 3: 8, 4: 24}
"""By seed: where in its unit, and beside which others, the pair at fault is."""


def done(report):
    assert (report.missing, report.failed, report.stopped) == (0, {}, False)


def test_a_worker_killed_at_a_random_moment(start, check, tools, seed):
    run = start()
    workers = tools.until(lambda: tools.workers_of(run.url))
    time.sleep(tools.random(seed).uniform(0, 1.5))
    tools.kill(workers[0])
    done(run.report())
    check(run.url)


def test_all_workers_killed_at_once(start, check, tools, seed):
    run = start()
    tools.until(lambda: len(tools.workers_of(run.url)) == 2)
    time.sleep(tools.random(seed).uniform(0, 1.0))
    for pid in tools.workers_of(run.url):
        tools.kill(pid)
    done(run.report())
    check(run.url)


def test_a_worker_stopped_beyond_its_lease_loses(start, check, tools, plug, cluster, seed, monkeypatch):
    """It wakes only after its unit was done by another, and commits then: that commit must not count."""
    from smoothcert.runtime.ray_executor import RayExecutor

    # the stopped worker is out of reach, as on a node that lost its network: nobody can end it
    kill, out_of_reach = RayExecutor._kill, []
    monkeypatch.setattr(RayExecutor, "_kill", lambda self, held: out_of_reach.append(held))
    run = start(plug.Faults(pace_s=0.05), lease_s=3)
    workers = tools.until(lambda: tools.workers_of(run.url))
    sleeper = workers[0]
    time.sleep(tools.random(seed).uniform(0, 0.5))
    os.kill(sleeper, signal.SIGSTOP)
    try:
        done(run.report())
        parts = len(list(Path(run.url, "certificates").iterdir()))
    finally:
        os.kill(sleeper, signal.SIGCONT)
        monkeypatch.setattr(RayExecutor, "_kill", kill)
    # it goes on where it was stopped: writes the part of a unit that was done by another, and finds that it lost
    tools.until(lambda: len(list(Path(run.url, "certificates").iterdir())) > parts)
    time.sleep(1)
    assert tools.alive(sleeper) and len(out_of_reach) == 1
    check(run.url)
    tools.kill(sleeper)
    check(run.url)


@pytest.mark.slow
def test_a_stopped_worker_is_ended_by_its_node(start, check, tools, plug):
    run = start(plug.Faults(pace_s=0.05), lease_s=3)
    sleeper = tools.until(lambda: tools.workers_of(run.url))[0]
    os.kill(sleeper, signal.SIGSTOP)
    done(run.report())
    tools.until(lambda: not tools.alive(sleeper))
    check(run.url)


def test_a_pair_that_ends_the_process_is_quarantined(start, check, plug, tools, seed):
    run = start(plug.Faults(on_bright="exit"), per_unit=PAIRS_PER_UNIT[seed])
    done(run.report())
    check(run.url, {tools.bright_id: "WorkerKilledError"})


def test_a_pair_that_hangs_is_quarantined(start, check, plug, tools, seed):
    # one worker is enough to convict: that it takes two by default is shown above
    run = start(plug.Faults(on_bright="hang"), lease_s=2.5, per_unit=PAIRS_PER_UNIT[seed], poison=1)
    done(run.report())
    check(run.url, {tools.bright_id: "WorkerHungError"})


def test_out_of_memory_on_a_batch_costs_nothing(start, check, plug, seed):
    run = start(plug.Faults(on_bright="oom_once"), per_unit=PAIRS_PER_UNIT[seed], workers=1)
    done(run.report())
    check(run.url)


@pytest.mark.slow
def test_out_of_memory_on_a_pair_alone_is_that_pair(start, check, plug, tools):
    run = start(plug.Faults(on_bright="oom"))
    done(run.report())
    check(run.url, {tools.bright_id: "OutOfMemoryError"})


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_worker_that_ray_ends_for_want_of_memory(driver_process, check, tools):
    """Ray's own memory monitor, not an error of the encoder: the pair at fault costs workers, not the run."""
    lines = [line.split() for line in Path("/proc/meminfo").read_text().splitlines()]
    memory = {name.rstrip(":"): 1024 * int(size) for name, size, *_ in lines}
    total = memory["MemTotal"]
    threshold = 1 - memory["MemAvailable"] / total + 0.08
    run = driver_process(
        f"on_bright='hoard', hoard_bytes={int(0.16 * total)}",
        environment={
            "RAY_memory_usage_threshold": f"{threshold:.3f}",
            "RAY_memory_monitor_refresh_ms": "100",
        },
        own_ray=True,
        workers=1,
        per_unit=3,
    )
    assert run.end(380) == 0, run.text
    check(run.url, {tools.bright_id: "WorkerKilledError"})


def test_a_worker_that_cannot_start_costs_nothing_while_another_works(start, check, plug, tmp_path):
    run = start(plug.Faults(pace_s=0.05, cannot_start="encoder", but_first=str(tmp_path / "first")))
    report = run.report()
    done(report)
    check(run.url)


@pytest.mark.parametrize(("kind", "code", "workers"), [("store", 3, 2), ("encoder", 2, 1)])
def test_workers_that_cannot_start_end_the_run_with_their_reason(start, plug, kind, code, workers):
    run = start(plug.Faults(cannot_start=kind), workers=workers)
    with pytest.raises(SmoothcertError, match=f"made by a test: {kind}") as caught:
        run.report()
    assert caught.value.exit_code == code


def test_a_cluster_without_room_is_said_and_not_waited_for_forever(start, plug, caplog):
    run = start(plug.Faults(), cpus=64, placement_s=12)
    with pytest.raises(ExecutorError, match=r"needs 64 CPUs.*no node is that large"):
        run.report()
    assert "2 workers are pending: a worker needs 64 CPUs" in caplog.text


def test_a_slow_worker_does_not_hold_up_the_end(start, check, plug, tmp_path, tools):
    """The last unit of a worker that became slow is run again by an idle one, and the faster attempt counts."""
    run = start(plug.Faults(pace_s=0.01, slow_process=str(tmp_path / "slow"), slow_s=5.0), lease_s=60)
    began = time.monotonic()
    done(run.report())
    # the slow one needs 5 s for each of about 20 steps of a unit: it can have delivered none of its two
    assert time.monotonic() - began < 100
    slow = (tmp_path / "slow").read_text()
    committed = {row["unit_id"] for row in tools.rows_of(run.url)}
    assert committed and slow
    check(run.url)


def test_the_rest_is_shared_out(start, check, plug, monkeypatch):
    """Two large units for two workers: cut into three each before they begin, like whatever is left of a long run."""
    from smoothcert.runtime import ledger
    from smoothcert.store import RunDirectory

    monkeypatch.setattr(ledger, "LEAST_DRAWS", 300)
    run = start(plug.Faults(), per_unit=24)
    done(run.report())
    committed = RunDirectory.open(run.url).commits.load()
    assert [[len(part) for part in parts] for parts in committed.split_units.values()] == [[8] * 3] * 2
    check(run.url)


def test_a_stop_hands_back_and_the_same_job_resumes(start, check, tools, plug):
    run = start(plug.Faults(pace_s=0.1), grace_s=0.5)
    tools.until(lambda: tools.commits_of(run.url) >= 1)
    run.stop.set()
    report = run.report()
    assert report.stopped and 0 < report.missing < tools.pairs
    again = start(plug.Faults(), workers=1)
    report = again.report()
    done(report)
    assert report.resumed > 0
    check(run.url)
