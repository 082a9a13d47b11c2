"""Many pairs from end to end: python tests/benchmarks/million.py [--pairs 1000000] [--workers 2].

Synthetic 32 x 32 pictures, an encoder that costs next to nothing, few draws, Ray workers of one core each: what is left
is reading, decoding, batching, rows, parts and commits. Prints rows/s and the memory of driver and workers over time,
which must be flat, and how long a summary takes over the resulting rows. Target: a summary query below 1 s.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from smoothcert.datasets import write_synthetic
from smoothcert.encoders import KnownEncoder
from smoothcert.job import Job, parse_job
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor
from smoothcert.runtime.opening import Opening
from smoothcert.runtime.session import Session
from smoothcert.sql import open_query

JOB = """
name: million
data: {{format: webdataset, uri: "{root}/pairs"}}
encoder: {{model: known, threads: 1, slots: 32, chunk: 8}}
certify: {{sigma: 0.25, pilot_draws: 7, max_draws: 8, radii: [0.1, 0.2], cosines: [0.5]}}
executor: {{kind: {kind}, workers: {workers}, cpus_per_worker: 1, gpus_per_worker: 0, pairs_per_unit: {per_unit}}}
output: {{runs: "{root}/runs", run: r}}
"""
SUMMARY = """SELECT status, count(*), avg(draws), avg(smooth_norm_lcb), quantile_cont(angular[1], 0.5),
count(*) FILTER (angular[1] >= 0.5) FROM certificates GROUP BY 1"""


def make_encoder() -> KnownEncoder:
    """Two multiplications a pixel."""
    torch.set_num_threads(1)
    return KnownEncoder.rotating(0.8, input_size=(32, 32), feature_dim=4)


@dataclass(frozen=True)
class KnownOpening(Opening):
    """Workers with that encoder."""

    def __call__(self) -> Session:
        """The session."""
        return self.with_encoder(make_encoder())


class KnownDriver(Driver):
    """A driver with that encoder."""

    def __init__(self, job: Job) -> None:
        super().__init__(job, make_encoder())

    def opening(self) -> Opening:
        """What workers start from."""
        plain = super().opening()
        return KnownOpening(plain.job, plain.run_url, plain.encoder_digest, plain.pool)


def resident_mib(pid: int | str) -> float:
    """Memory of a process; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except FileNotFoundError:
        return 0.0
    return int(fields[1]) * 4096 / 2**20


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--per-unit", type=int, default=2_000)
    parser.add_argument("--kind", default="ray")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        began = time.perf_counter()
        write_synthetic(
            f"{root}/pairs", "webdataset", pairs=given.pairs, pairs_per_shard=10_000, size=32, seed=0
        )
        print(f"{given.pairs:,} pairs written in {time.perf_counter() - began:.0f} s")
        text = JOB.format(root=root, kind=given.kind, workers=given.workers, per_unit=given.per_unit)
        driver = KnownDriver(parse_job(text))
        rows = 0
        done = threading.Event()

        def on_result(result: object) -> None:
            nonlocal rows
            rows += result.commit.rows  # type: ignore[attr-defined]

        def watch() -> None:
            started = time.perf_counter()
            before = 0
            while not done.wait(given.pairs / 10_000):
                workers = [
                    json.loads(path.read_text().splitlines()[0])["worker"].rpartition(":")[2]
                    for path in Path(root, "runs/r/workers").glob("*.jsonl")
                ]
                memory = "  ".join(f"{resident_mib(pid):6.0f}" for pid in ["self", *workers])
                seconds = time.perf_counter() - started
                print(
                    f"{seconds:7.0f} s {rows:10,} rows {rows - before:8,} new   MiB driver, workers {memory}"
                )
                before = rows

        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.perf_counter()
        report = driver.work("certification", Monitor(on_result))
        seconds = time.perf_counter() - began
        done.set()
        watcher.join()
        assert report.missing == 0 and not report.failed
        print(
            f"{report.done:,} rows in {seconds:.0f} s with the start of the workers: {rows / seconds:,.0f} rows/s"
        )
        began = time.perf_counter()
        with open_query([driver.url]) as query:
            opened = time.perf_counter()
            query.sql(SUMMARY)
        print(
            f"query opened in {opened - began:.2f} s, summary in {time.perf_counter() - opened:.2f} s (target 1)"
        )


if __name__ == "__main__":
    main()
