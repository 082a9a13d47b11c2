"""Peak memory against the number of pairs: `python tests/benchmarks/memory.py [--pairs 1000 50000]`.

32 x 32 pairs, an encoder that costs next to nothing, few draws, the local executor; each size in a process of its own.
Target: growth below 5% from 1,000 to 50,000 pairs.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time


def run(pairs: int) -> None:
    from smoothcert.datasets import write_synthetic
    from smoothcert.encoders import KnownEncoder
    from smoothcert.job import parse_job
    from smoothcert.runtime.driver import Driver
    from smoothcert.runtime.executor import Monitor

    with tempfile.TemporaryDirectory() as folder:
        write_synthetic(f"{folder}/data", "parquet", pairs=pairs, pairs_per_shard=5_000, size=32)
        job = parse_job(
            f"name: memory\ndata: {{format: parquet, uri: '{folder}/data'}}\nencoder: {{model: known}}\n"
            "certify: {sigma: 0.25, pilot_draws: 3, max_draws: 8, radii: [0.1], cosines: [0.5]}\n"
            f"output: {{runs: '{folder}/runs'}}\nexecutor: {{pairs_per_unit: 500}}"
        )
        started = time.perf_counter()
        report = Driver(job, KnownEncoder.rotating(input_size=(32, 32))).work(
            "certification", Monitor(lambda result: None)
        )
        seconds = time.perf_counter() - started
        assert report.missing == 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{pairs} {peak:.1f} {seconds:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, nargs="+", default=[1_000, 50_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run(options.one)
        return
    peaks = []
    for pairs in options.pairs:
        done = subprocess.run(
            [sys.executable, __file__, "--one", str(pairs)], capture_output=True, text=True, check=True
        )
        count, peak, seconds = done.stdout.split()[-3:]
        peaks.append(float(peak))
        print(f"{int(count):>8,} pairs: peak {float(peak):,.0f} MiB, {float(seconds):,.0f} s")
    print(f"growth: {peaks[-1] / peaks[0] - 1:+.1%}")


if __name__ == "__main__":
    main()
