"""Figures of the store: python tests/benchmarks/store.py [--units N] [--rows N]. Needs about 1 GB of disk and memory.

Prints the cost of committing, of resuming a large run, of folding and compacting, and of SQL over many rows.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from smoothcert.datasets import UnitSpec
from smoothcert.job import parse_job
from smoothcert.sql import open_query
from smoothcert.store import CERTIFICATES, Commit, PartFile, RunDirectory, RunIdentity, new_attempt
from smoothcert.store.parts import write_part

JOB = """
name: store-benchmark
data: {format: parquet, uri: none}
encoder: {model: "bundled:digits-clip"}
certify:
  sigma: 0.5
  targets: [{certificate: angular, radius: 0.25, cosine: 0.8}, {certificate: class, radius: 0.25}]
zero_shot: {labels: [cat, dog]}
"""


@contextmanager
def timed(what: str) -> Iterator[None]:
    start, busy = time.perf_counter(), time.process_time()
    yield
    seconds, cpu = time.perf_counter() - start, time.process_time() - busy
    print(f"{what:<62} {seconds:8.3f} s {cpu:8.3f} s of CPU", flush=True)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def units(count: int, pairs: int) -> Iterator[UnitSpec]:
    for i in range(count):
        yield UnitSpec(f"u{i:06d}-00000000", f"shard-{i // 100:05d}.parquet", i * pairs, (i + 1) * pairs)


def rows_of(unit: UnitSpec, run_id: str, attempt: str) -> pa.Table:
    """Plausible rows of a unit, made column by column."""
    n = len(unit)
    rng = np.random.default_rng(unit.start)
    norm = rng.beta(20, 2, n)

    def grid(*columns: np.ndarray) -> pa.Array:
        flat = np.stack(columns, axis=1).ravel()
        offsets = np.arange(0, len(flat) + 1, len(columns), dtype=np.int32)
        return pa.ListArray.from_arrays(offsets, pa.array(flat, from_pandas=True))

    def vacuous(values: np.ndarray) -> np.ndarray:
        return np.where(values > 0, values, np.nan)

    bounds = grid(*(vacuous(norm - s) for s in (0.1, 0.3, 0.5, 0.9)))
    texts = pa.ListArray.from_arrays(np.arange(n + 1, dtype=np.int32), pa.array(["a photo"] * n))
    decided = pa.ListArray.from_arrays(
        np.arange(0, 2 * n + 1, 2, dtype=np.int32),
        pa.array(np.where(np.repeat(norm, 2) > 0.85, "certified", "budget")),
    )
    values: dict[str, Callable[[], object]] = {
        "run_id": lambda: [run_id] * n,
        "unit_id": lambda: [unit.unit_id] * n,
        "attempt": lambda: [attempt] * n,
        "pair_id": lambda: [f"{unit.name}#{i}" for i in range(unit.start, unit.stop)],
        "captions": lambda: texts,
        "status": lambda: ["ok"] * n,
        "target_decision": lambda: decided,
        "log_e_value": lambda: grid(norm * 20 - 10, norm),
        "retrieval_rank": lambda: [None] * n,
        "seed": lambda: [0] * n,
        "sigma": lambda: [0.5] * n,
        "alpha": lambda: [0.001] * n,
    }
    for name in ("fcsb", "angular", "clean_reference", "large_radius", "caption_bound"):
        values[name] = lambda: bounds
    for name in ("fcsb_radius", "angular_radius", "second_moment_radius"):
        values[name] = lambda: grid(norm, vacuous(norm - 0.8), vacuous(norm - 0.9))
    for name in ("clean", "pilot", "caption", "class"):
        values[f"{name}_percentile"] = lambda: bounds
        values[f"{name}_quantile_lcb"] = lambda: grid(*(norm * step for step in np.linspace(1.0, 0.2, 25)))
    for name in ("clean_percentile_radius", "pilot_percentile_radius"):
        values[name] = lambda: grid(norm, vacuous(norm - 0.8), vacuous(norm - 0.9))
    for name in ("second_moment", "clean_distribution", "class_distribution", "caption_distribution"):
        values[name] = lambda: bounds
    for name in ("clean", "class", "caption"):
        values[f"{name}_scalar_lcb"] = lambda: bounds
        law = [np.round(norm, 4), np.round(0.1 * norm, 4), np.full(n, 1.9), np.full(n, 0.5), norm]
        values[f"{name}_scalar"] = lambda law=law: grid(*law * 4)  # type: ignore[misc]
    for name in ("retrieval_scalar_lcb", "retrieval_scalar", "retrieval_distribution"):
        values[name] = lambda: [None] * n
    values["exceedance_lcb"] = lambda: grid(*(norm * step for step in np.linspace(1.0, 0.5, 8)))
    columns = []
    for column in CERTIFICATES.columns:
        if column.name in values:
            columns.append(pa.array(values[column.name](), column.type))  # type: ignore[arg-type]
        elif column.name.startswith("error_"):
            columns.append(pa.nulls(n, column.type))
        elif column.type == pa.string():
            columns.append(pa.array(["decided" if column.name == "stop_reason" else "text"] * n))
        elif column.type == pa.int32():
            columns.append(pa.array(rng.integers(50, 1000, n), pa.int32()))
        else:
            columns.append(pa.array(norm))
    return pa.Table.from_arrays(
        [c.cast(f.type) for c, f in zip(columns, CERTIFICATES.arrow, strict=True)], schema=CERTIFICATES.arrow
    )


def resume(directory: Path, count: int) -> None:
    """10 million pairs in 40,000 units, 39 of 40 committed: what a driver does before its first unit."""
    print(f"\n{count} units of 250 pairs, {count * 39 // 40} committed")
    identity = RunIdentity(parse_job(JOB), "d" * 64, "e" * 64, "0")
    with timed("plan written, run created"):
        run = RunDirectory.create_or_open(directory, identity, units(count, 250))
    committed = count * 39 // 40
    (directory / "commits").mkdir(exist_ok=True)
    for i, unit in enumerate(units(committed, 250)):
        part = PartFile("certificates", f"certificates/{unit.unit_id}-{i:016x}.parquet", 250, 60_000)
        commit = Commit(
            unit_id=unit.unit_id, attempt=f"{i:016x}", parts=(part,), ok=250, draws=250_000, worker="w"
        )
        (directory / "commits" / f"{unit.unit_id}.json").write_bytes(commit.to_json())
    with timed("loaded, nothing folded"):
        run.commits.load()
    with timed("folded"):
        run.commits.fold()
    before = peak_mib()
    with timed("opened again: loaded, pending units listed"):
        run = RunDirectory.create_or_open(directory, identity, ())
        state = run.commits.load()
        pending = sum(1 for _ in run.pending(state))
    assert (state.pairs, pending) == (committed * 250, count - committed)
    print(f"{'peak memory; growth since folding':<62} {peak_mib():8.0f} MiB; {peak_mib() - before:.0f} MiB")


def sql(directory: Path, count: int, per_unit: int) -> None:
    """A million rows: committing, asking, compacting, asking again."""
    print(f"\n{count} units of {per_unit} rows")
    identity = RunIdentity(parse_job(JOB), "d" * 64, "e" * 64, "0")
    run = RunDirectory.create_or_open(directory, identity, units(count, per_unit))
    made = [(unit, new_attempt()) for unit in units(count, per_unit)]
    tables = (rows_of(unit, run.run_id, attempt) for unit, attempt in made)
    written = committed = 0.0
    for (unit, attempt), table in zip(made, tables, strict=True):
        start = time.perf_counter()
        part = write_part(run.storage, CERTIFICATES, unit.unit_id, attempt, table)
        middle = time.perf_counter()
        run.commits.commit(
            Commit(unit_id=unit.unit_id, attempt=attempt, parts=(part,), ok=len(unit), worker="w")
        )
        written += middle - start
        committed += time.perf_counter() - middle
    print(f"{'part written, synced and read back, each':<62} {written / count * 1e3:8.2f} ms")
    print(f"{'commit, each':<62} {committed / count * 1e3:8.2f} ms")
    with timed("folded"):
        run.commits.fold(min_new=1)
    ask(run.url)
    try:
        from smoothcert.store.compact import compact
    except ImportError:
        return
    with timed("compacted"):
        report = compact(run)
    print(f"files {report.files_before} -> {report.files_after}")
    ask(run.url)


QUERIES = {
    "count by status": "SELECT status, count(*) FROM certificates GROUP BY 1",
    "summary": "SELECT count(*), avg(draws), avg(smooth_norm_lcb), quantile_cont(certified_radius, 0.5), "
    "count(*) FILTER (angular[2] >= 0.8), avg(angular[3]) FROM certificates",
    "certified_share": "SELECT * FROM certified_share",
    "one pair": "SELECT * FROM certificates WHERE pair_id = 'shard-00000.parquet#77'",
    "e-BH": "SELECT count(*) FROM ebh(1, 0.05)",
    "angular_bound at a new radius": "SELECT avg(angular_bound(smooth_norm_lcb, 0.37, sigma)) FROM certificates",
    "bounds view": "SELECT certificate, radius, avg(cosine) FROM bounds GROUP BY ALL",
}


def ask(url: str) -> None:
    with timed("  query opened"):
        query = open_query([url])
    for name, text in QUERIES.items():
        with timed(f"  {name}"):
            query.sql(text)
    query.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=40_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        resume(Path(scratch) / "resume", options.units)
        sql(Path(scratch) / "large units", options.rows // 10_000, 10_000)
        sql(Path(scratch) / "small units", options.rows // 500, 500)
    print(json.dumps({"peak_mib": round(peak_mib())}))


if __name__ == "__main__":
    main()
