"""A driver's cost before its first unit: python tests/benchmarks/scale.py [--units 40000].

Plans 10 million pairs in 40,000 units, commits all but 1,000 of them (the records alone, no rows), and lets a fresh
process plan, resume and list what is left. Prints its seconds and its peak memory. Target: below 10 s and 1 GiB.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from smoothcert.datasets import SourceFile, UnitSpec
from smoothcert.datasets.records import unit_id
from smoothcert.job import Job, parse_job
from smoothcert.runtime.plan import make_plan
from smoothcert.store import Commit, PartFile, RunDirectory, RunIdentity

PAIRS_PER_UNIT, UNITS_PER_FILE = 250, 100
JOB = """
name: scale
data: {format: parquet, uri: none}
encoder: {model: "bundled:digits-clip"}
certify: {sigma: 0.5}
executor: {pairs_per_unit: 250}
"""


class Listing:
    """What planning asks of a source, for files that do not exist."""

    def __init__(self, units: int) -> None:
        self._units = units

    def files(self) -> Iterator[SourceFile]:
        """Files of 25,000 pairs."""
        for number in range(self._units // UNITS_PER_FILE):
            name = f"shard-{number:05d}.parquet"
            yield SourceFile(
                f"s3://bucket/data/{name}", name, PAIRS_PER_UNIT * UNITS_PER_FILE, f"{number:064x}"
            )

    def units(self, pairs_per_unit: int) -> Iterator[UnitSpec]:
        """As a real source cuts them."""
        number = 0
        for file in self.files():
            for start in range(0, file.pairs, pairs_per_unit):
                stop = start + pairs_per_unit
                identity = unit_id(f"u{number:06d}", file.name, start, stop)
                yield UnitSpec(identity, file.uri, start, stop, source_name=file.name)
                number += 1

    covers = "nothing"

    def digest(self) -> str:
        """Any."""
        return "d" * 64

    def named_images(self, unit: UnitSpec) -> Iterator[tuple[str, str]]:
        """None: images are inside."""
        return iter(())

    def left_out(self) -> tuple[()]:
        """Nothing."""
        return ()


def prepare(directory: Path, units: int, open_units: int) -> None:
    """The run directory as a driver leaves it that died near the end: last commits not folded yet."""
    job = parse_job(JOB)
    plan = make_plan(job, Listing(units))  # type: ignore[arg-type]
    run = RunDirectory.create_or_open(directory, identity_of(job), plan.units)
    commits = directory / "commits"
    commits.mkdir(exist_ok=True)
    closed = plan.units[: units - open_units]
    for number, unit in enumerate(closed):
        if number == len(closed) - 400:
            run.commits.fold(min_new=1)
        file = f"certificates/{unit.unit_id}-{number:016x}.parquet"
        part = PartFile("certificates", file, PAIRS_PER_UNIT, 60_000)
        commit = Commit(
            unit_id=unit.unit_id,
            attempt=f"{number:016x}",
            parts=(part,),
            ok=PAIRS_PER_UNIT,
            draws=1,
            worker="w",
        )
        (commits / f"{unit.unit_id}.json").write_bytes(commit.to_json())


def identity_of(job: Job) -> RunIdentity:
    """The same for both processes."""
    return RunIdentity(job, "d" * 64, "e" * 64, "0")


def resume(directory: Path, units: int, open_units: int) -> None:
    """What the driver does: plan, open, load commits, list pending units."""
    bare = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    job = parse_job(JOB)
    plan = make_plan(job, Listing(units))  # type: ignore[arg-type]
    planned = time.perf_counter()
    run = RunDirectory.create_or_open(directory, identity_of(job), plan.units)
    state = run.commits.load()
    loaded = time.perf_counter()
    pending = sum(1 for _ in run.pending(state))
    ended = time.perf_counter()
    assert pending == open_units and state.pairs == (units - open_units) * PAIRS_PER_UNIT
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"plan {plan.pairs:,} pairs in {len(plan.units):,} units   {planned - started:8.2f} s")
    print(f"open and load {state.pairs:,} committed    {loaded - planned:8.2f} s")
    print(f"list {pending:,} pending units             {ended - loaded:8.2f} s")
    print(
        f"together {ended - started:.2f} s (target 10), peak {peak / 1024:,.0f} MiB (target 1024), ", end=""
    )
    print(f"{bare / 1024:,.0f} MiB of it imports")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=40_000)
    parser.add_argument("--open", type=int, default=1_000)
    parser.add_argument("--resume", type=Path)
    given = parser.parse_args()
    if given.resume:
        resume(given.resume, given.units, given.open)
        return
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), given.units, given.open)
        command = [sys.executable, __file__, "--units", str(given.units), "--open", str(given.open)]
        subprocess.run([*command, "--resume", name], check=True)


if __name__ == "__main__":
    main()
