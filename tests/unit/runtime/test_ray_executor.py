"""What the driver makes of losses and of its own pauses: the executor's bookkeeping, without a cluster."""

import time
from types import SimpleNamespace

import pytest

from smoothcert.datasets import UnitSpec
from smoothcert.errors import ExecutorError
from smoothcert.job import ExecutorSection
from smoothcert.job.encoder import EncoderSection
from smoothcert.runtime.executor import Monitor
from smoothcert.runtime.ledger import Ledger, Loss
from smoothcert.runtime.ray_cluster import WorkerShare, uses_gpu
from smoothcert.runtime.ray_executor import RayExecutor, _Held
from smoothcert.work.inputs import loadable_here

MONITOR = Monitor(lambda result: None)


class Actor:
    """Stands for a handle whose process is gone; ``ray.kill`` on it is never reached."""


def executor(workers, ready, done):
    """An executor with workers, the first of them ready and with a unit each; and its ledger."""
    made = RayExecutor(lambda: None, ExecutorSection(kind="ray", workers=workers), None, uses_gpu=False)
    made._done = done
    ledger = Ledger([UnitSpec(f"u{i}", "f", i, i + 1) for i in range(200)])
    for i in range(workers):
        held = _Held(f"w{i}", Actor(), None, f"start{i}", place=("node", i), ready=i < ready)
        made._held[held.name] = held
        if held.ready:
            held.errands[f"ref{i}"] = ledger.next_for(held.name, 1, 0.0)
    return made, ledger


@pytest.mark.parametrize(
    ("workers", "ready", "done"),
    [(9, 8, 5000), (8, 0, 5000), (32, 32, 0), (32, 0, 0)],
    ids=["a node late in a run", "while all load", "before the first unit", "before anyone is ready"],
)
def test_what_the_cluster_takes_counts_against_the_preemption_budget_alone(workers, ready, done):
    made, ledger = executor(workers, ready, done)
    for held in list(made._held.values()):
        made._lose(ledger, MONITOR, held, Loss.PREEMPTED, "its node is gone")
    assert (ledger.preemptions, ledger.losses) == (workers, workers)
    assert made._hire_after == 0.0  # replacements are hired at once


def test_workers_that_die_together_while_they_start_count_once_and_those_after_them_again():
    made, ledger = executor(8, 0, 5000)
    before = time.monotonic()
    for held in list(made._held.values()):
        made._lose(ledger, MONITOR, held, Loss.DIED, "its process ended")
    assert made._starts_lost == 1 and made._hire_after > before
    with pytest.raises(ExecutorError, match="while starting"):
        for i in range(10):
            made._hire_after = 0.0  # the pause is over
            made._held["w"] = _Held("w", Actor(), None, f"again{i}", place=("node", i))
            made._lose(ledger, MONITOR, made._held["w"], Loss.DIED, "its process ended")
    assert made._starts_lost == 6


def test_nobody_gives_up_while_another_worker_works():
    made, ledger = executor(1, 1, 5000)
    for i in range(40):
        made._hire_after = 0.0
        before = time.monotonic()
        made._held["w"] = _Held("w", Actor(), None, f"again{i}", place=("bad node", i))
        made._lose(ledger, MONITOR, made._held["w"], Loss.DIED, "its process ended")
    # a minute after the last loss, which was between these two looks at the clock
    assert before + 60 <= made._hire_after <= time.monotonic() + 60


def test_the_drivers_own_pause_is_not_held_against_workers(monkeypatch):
    made, ledger = executor(1, 1, 1)
    [held] = made._held.values()
    held.actor = SimpleNamespace(progress=SimpleNamespace(remote=object))
    lost = []
    monkeypatch.setattr(made, "_kill", lambda held: None)
    monkeypatch.setattr(made, "_lose", lambda ledger, monitor, held, loss, reason: lost.append(loss))
    now = time.monotonic()
    held.moved = held.beat_sent = made._looked = now - 301  # all was well when the driver went away
    made._forgive_own_pause(now)
    made._check_beats(ledger, MONITOR)
    assert not lost
    held.moved = now - 301  # but a worker that is silent while the driver is there is hung
    held.beat_ref = None
    made._check_beats(ledger, MONITOR)
    assert lost == [Loss.HUNG]


@pytest.mark.parametrize(
    ("device", "nodes", "told", "gpus", "workers"),
    [
        ("cuda", {"CPU": 4}, None, 1.0, 1),
        ("cuda", {"CPU": 64, "GPU": 8}, None, 1.0, 8),
        ("auto", {"CPU": 64, "GPU": 8}, None, 1.0, 8),
        ("auto", {"CPU": 4}, None, 0.0, 4),
        ("auto", {"CPU": 4}, 1.0, 1.0, 1),
        ("cpu", {"CPU": 64, "GPU": 8}, None, 0.0, 64),
        ("cuda", {"CPU": 64, "GPU": 8}, 0.5, 0.5, 16),
    ],
)
def test_workers_ask_for_what_their_encoder_needs(monkeypatch, device, nodes, told, gpus, workers):
    import ray

    monkeypatch.setattr(ray, "cluster_resources", lambda: nodes)
    section = ExecutorSection(kind="ray", gpus_per_worker=told)
    share = WorkerShare.of(section, uses_gpu=uses_gpu(EncoderSection(model="m", device=device)))
    assert (share.gpus, share.workers()) == (gpus, workers)
    nodes |= {"CPU": 2 * nodes["CPU"], "GPU": 2 * nodes.get("GPU", 0)}
    assert share.workers() >= workers  # more nodes, more workers


def test_a_driver_without_a_gpu_plans_for_workers_that_have_one(monkeypatch):
    import torch

    section = EncoderSection(model="m", device="cuda:0", compile=True)
    on_ray, local = ExecutorSection(kind="ray"), ExecutorSection(kind="local")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    here = loadable_here(section, on_ray)
    assert (here.device, here.compile) == ("cpu", False)
    assert loadable_here(section, local) is section  # it computes here, so a missing device is an error
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert loadable_here(section, on_ray) is section


@pytest.mark.parametrize(
    ("nodes", "free", "said"),
    [
        ([{"CPU": 1.0}, {"CPU": 2.0}], {}, "no node has 2 CPUs free"),
        ([{"CPU": 1.0}, {"CPU": 2.0}], {"CPU": 1.0}, "no node has 2 CPUs free"),
        ([{"CPU": 1.0}, {"CPU": 2.0}], {"CPU": 3.0}, "the cluster has 3 CPUs free: Ray prepares a node"),
        ([{"CPU": 1.0}], {"CPU": 1.0}, "no node is that large: nodes have 1 CPU"),
    ],
)
def test_why_a_worker_is_pending(nodes, free, said, monkeypatch):
    alive = [{"Alive": True, "Resources": each} for each in nodes]
    told = SimpleNamespace(nodes=lambda: alive, available_resources=lambda: free)
    monkeypatch.setattr("smoothcert.runtime.ray_cluster.ray", told)
    why = WorkerShare(cpus=2.0, gpus=0.0, asked=None).unplaced()
    assert why.startswith("a worker needs 2 CPUs") and said in why
