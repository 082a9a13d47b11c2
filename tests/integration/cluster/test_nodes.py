"""Nodes that go away: their units go back, and no pair is blamed."""

import os
import signal
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(250)


def test_a_raylet_killed_with_all_its_workers(start, plug, check, tools, cluster, ready, seed, monkeypatch):
    from smoothcert.runtime import ledger as module

    losses = []
    lose = module.Ledger.lose

    def note(ledger, worker, loss):
        if ledger._running.get(worker):  # without a unit it may count as dead: there is no pair to blame
            losses.append(loss)
        return lose(ledger, worker, loss)

    monkeypatch.setattr(module.Ledger, "lose", note)
    import ray

    spot = cluster.add_node(num_cpus=1, resources={"spot": 1}, object_store_memory=2**27, **ready)
    blocker = ray.remote(num_cpus=2)(_Blocker).remote()  # the head is full: workers go to the other node
    ray.get(blocker.ready.remote())
    # the run outlives the wait below by far, and the seconds that workers outlive their raylet
    run = start(plug.Faults(pace_s=0.3))
    # a worker that has not started yet is moved by Ray itself: nothing is lost
    logs = Path(run.url, "workers")
    tools.until(lambda: any('"event": "start"' in log.read_text() for log in logs.glob("*.jsonl")))
    time.sleep(tools.random(seed).uniform(0, 1.0))
    raylet = spot.all_processes["raylet"][0].process
    os.kill(raylet.pid, signal.SIGKILL)
    ray.kill(blocker)  # now there is room on the head
    try:
        report = run.report()
    finally:
        cluster.remove_node(spot, allow_graceful=False)
    assert (report.missing, report.failed) == (0, {})
    assert losses and set(losses) == {module.Loss.PREEMPTED}
    check(run.url)


class _Blocker:
    def ready(self) -> None:
        pass
