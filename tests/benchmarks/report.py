"""The report of very many pairs: python tests/benchmarks/report.py [--pairs 1000000].

Rows as certification writes them, repeated under new names from a run of the bundled digits, committed unit by unit;
then the page, in a process of its own. Prints its time, its size and its peak of memory. Targets: 20 s, 10 MB, 1 GiB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.datasets import UnitSpec, write_demo_data
from smoothcert.job import parse_job
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor
from smoothcert.store import CERTIFICATES, Commit, RunDirectory, RunIdentity, new_attempt
from smoothcert.store.parts import write_part

JOB = """
name: many
data: {{format: parquet, uri: "{root}/digits", limit: 360}}
encoder: {{model: "bundled:digits-clip", threads: 2}}
certify: {{sigma: 0.25, max_draws: 100, radii: [0.0625, 0.125, 0.25, 0.375, 0.5], cosines: [0.5, 0.8, 0.9]}}
zero_shot: {{labels: [zero, one, two, three, four, five, six, seven, eight, nine]}}
output: {{runs: "{root}/runs", run: {run}}}
tracking: {{enabled: false}}
"""
PER_UNIT = 20_000
MAKE = """
import resource, sys, time
from pathlib import Path
began = time.perf_counter()
from smoothcert.report import make_report
from smoothcert.store import RunDirectory
page = make_report([RunDirectory.open(sys.argv[1])])
print(f"{time.perf_counter() - began:.1f} s ({time.process_time():.1f} s of CPU), {len(page.encode()) / 1e6:.2f} MB, "
      f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at most")
"""


def make_run(root: Path, pairs: int) -> str:
    """A run directory with that many committed rows."""
    write_demo_data(root / "digits", "parquet")
    driver = Driver(parse_job(JOB.format(root=root, run="small")))
    driver.work("certification", Monitor(lambda result: None))
    small = pa.concat_tables(
        [pq.read_table(file) for file in Path(driver.url, "certificates").glob("*.parquet")]
    )
    info = driver.run.info
    uri = small["source_uri"][0].as_py()
    units = [
        UnitSpec(f"u{number:06d}-00000000", uri, start, min(start + PER_UNIT, pairs))
        for number, start in enumerate(range(0, pairs, PER_UNIT))
    ]
    job = parse_job(JOB.format(root=root, run="large"))
    identity = RunIdentity(job, info.data_digest, info.encoder_digest, info.code_version)
    run = RunDirectory.create_or_open(f"{root}/runs/large", identity, units)
    random = np.random.default_rng(0)
    with run.committing():
        for unit in units:
            rows = small.take(pa.array(random.integers(0, small.num_rows, len(unit))))
            attempt = new_attempt()
            new = {
                "run_id": [run.run_id] * len(unit),
                "unit_id": [unit.unit_id] * len(unit),
                "attempt": [attempt] * len(unit),
                "pair_id": [f"pairs#{position}" for position in range(unit.start, unit.stop)],
            }
            for name, values in new.items():
                rows = rows.set_column(rows.column_names.index(name), name, pa.array(values, pa.string()))
            part = write_part(run.storage, CERTIFICATES, unit.unit_id, attempt, rows.cast(CERTIFICATES.arrow))
            draws = 107 * len(unit)
            run.commits.commit(
                Commit(
                    unit_id=unit.unit_id, attempt=attempt, parts=(part,), ok=len(unit), draws=draws,
                    seconds=60.0, worker="w",
                )
            )  # fmt: skip
    return run.url


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        began = time.perf_counter()
        url = make_run(Path(root), given.pairs)
        print(f"{given.pairs:,} rows written in {time.perf_counter() - began:.0f} s", flush=True)
        done = subprocess.run([sys.executable, "-c", MAKE, url], check=True, text=True, capture_output=True)
        print("the page:", done.stdout.strip(), "(targets 20 s, 10 MB, 1024 MiB)")


if __name__ == "__main__":
    main()
