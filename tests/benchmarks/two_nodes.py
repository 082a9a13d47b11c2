"""Two nodes against one: python tests/benchmarks/two_nodes.py [--pairs 400] [--draws 200]. Needs two idle cores.

Two Ray nodes on this machine with one CPU each, one worker each, every worker pinned to a core of its own; the encoder
multiplies matrices on that core. Prints draws/s of one node and of two, from the first commit to the last, so that the
start of workers does not count. Target: 1.9 times.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import dataclass

import ray
import torch
from ray.cluster_utils import Cluster

from smoothcert.datasets import write_synthetic
from smoothcert.encoders import KnownEncoder
from smoothcert.job import Job, parse_job
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor
from smoothcert.runtime.opening import Opening
from smoothcert.runtime.session import Session
from smoothcert.store import RunDirectory

JOB = """
name: nodes
data: {{format: parquet, uri: "{root}/pairs"}}
encoder: {{model: known, threads: 1, slots: 4, chunk: 16}}
certify: {{sigma: 0.25, pilot_draws: 15, max_draws: {draws}, radii: [0.1], cosines: [0.5]}}
executor: {{kind: ray, workers: {workers}, cpus_per_worker: 1, gpus_per_worker: 0, pairs_per_unit: 5}}
output: {{runs: "{root}/runs", run: "r{workers}"}}
"""


class HeavyEncoder(KnownEncoder):
    """Known features, after much work on one core."""

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        weights = torch.ones((1024, 1024))
        for _ in range(4):
            weights = torch.tanh(weights @ weights / 1024)
        return super()._image_features(pixels) + 0 * weights[0, 0]


def make_encoder() -> HeavyEncoder:
    """On one thread."""
    torch.set_num_threads(1)
    return HeavyEncoder.rotating(0.8, input_size=(16, 16), feature_dim=4)


@dataclass(frozen=True)
class PinnedOpening(Opening):
    """Workers on the core of their node."""

    def __call__(self) -> Session:
        """The session."""
        nodes = sorted(
            node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")
        )
        cores = sorted(os.sched_getaffinity(0))
        mine = cores[nodes.index(ray.get_runtime_context().get_node_id()) % len(cores)]
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), {mine})
        return self.with_encoder(make_encoder())


class PinnedDriver(Driver):
    """A driver with that encoder."""

    def __init__(self, job: Job) -> None:
        super().__init__(job, make_encoder())

    def opening(self) -> Opening:
        """What workers start from."""
        plain = super().opening()
        return PinnedOpening(plain.job, plain.run_url, plain.encoder_digest, plain.pool)


def measure(root: str, workers: int, draws: int) -> float:
    """Draws per second of a run with so many workers, between its first commit and its last."""
    driver = PinnedDriver(parse_job(JOB.format(root=root, workers=workers, draws=draws)))
    began = time.perf_counter()
    report = driver.work("certification", Monitor(lambda result: None))
    assert report.missing == 0
    table = RunDirectory.open(driver.url).commits.load().table
    by_worker: dict[str, list[tuple[float, int]]] = {}
    for name, at, count in zip(
        *(table[c].to_pylist() for c in ("worker", "committed_at", "draws")), strict=True
    ):
        by_worker.setdefault(name, []).append((at, count))
    # from the moment at which every worker has committed once, all of them are at work
    start = max(min(at for at, _ in held) for held in by_worker.values())
    end = max(at for held in by_worker.values() for at, _ in held)
    counted = sum(count for held in by_worker.values() for at, count in held if at > start)
    rate = counted / (end - start)
    print(
        f"{len(by_worker)} workers: {rate:8,.0f} draws/s ({time.perf_counter() - began:.0f} s with the start)"
    )
    return rate


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--draws", type=int, default=200)
    given = parser.parse_args()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    with tempfile.TemporaryDirectory() as root:
        write_synthetic(
            f"{root}/pairs", "parquet", pairs=given.pairs, pairs_per_shard=10_000, size=16, seed=0
        )
        one = measure(root, 1, given.draws)
        cluster.add_node(num_cpus=1)
        two = measure(root, 2, given.draws)
        print(f"two nodes against one: {two / one:.2f} times (target 1.9)")
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
