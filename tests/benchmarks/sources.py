"""Figures of the data sources on this machine: ``python tests/benchmarks/sources.py [PAIRS]``.

Linux only. Prints pairs per second of one core (CPU time) for writing, planning, reading and decoding synthetic
32x32 pairs in every format; the time to plan 40,000 units; and how memory grows with the number of pairs and with
the row group.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from smoothcert.datasets import decode_image, open_source, write_synthetic
from smoothcert.job import DataSection

FORMATS = ("parquet", "webdataset", "manifest")


def rate(count, work):
    start = time.process_time()
    result = work()
    return count / (time.process_time() - start), result


def speeds(root, pairs):
    print(f"{'pairs/s (one core)':20}{'write':>10}{'plan':>12}{'read':>10}{'captions':>10}{'decode':>10}")
    for format in FORMATS:
        count = pairs if format != "manifest" else pairs // 5
        directory = root / format
        write, _ = rate(count, lambda d=directory, f=format, n=count: write_synthetic(d, f, pairs=n))
        source = open_source(DataSection(format=format, uri=str(directory)))
        plan, units = rate(count, lambda s=source: list(s.units(250)))
        read, images = rate(
            count, lambda s=source, u=units: [pair.image for unit in u for pair in s.read(unit)]
        )
        captions, _ = rate(count, lambda s=source: sum(1 for _ in s.captions()))
        some = images[:5000]
        decode, _ = rate(len(some), lambda i=some: [decode_image(image, max_pixels=10**6) for image in i])
        print(f"{format:20}{write:>10,.0f}{plan:>12,.0f}{read:>10,.0f}{captions:>10,.0f}{decode:>10,.0f}")


def many_units(root):
    """40,000 units: one file of many rows, and many files of few rows."""
    rows = 100_000
    table = pa.table({"image": pa.array([b""] * rows, pa.binary()), "caption": pa.array([""] * rows)})
    (root / "one").mkdir()
    with pq.ParquetWriter(root / "one" / "a.parquet", table.schema) as writer:
        for _ in range(100):
            writer.write_table(table)
    (root / "many").mkdir()
    pq.write_table(table.slice(0, 1000), root / "many" / "00000.parquet")
    content = (root / "many" / "00000.parquet").read_bytes()
    for number in range(1, 10_000):
        (root / "many" / f"{number:05d}.parquet").write_bytes(content)
    for name in ("one", "many"):
        source = open_source(DataSection(format="parquet", uri=str(root / name)))
        start = time.perf_counter()
        files = sum(1 for _ in source.files())
        units = sum(1 for _ in source.units(250))
        print(f"plan {units:,} units of 250 pairs in {files:,} file(s): {time.perf_counter() - start:.2f} s")


def peak_mib(format, directory, pairs):
    """Peak resident memory of a fresh process that reads and decodes so many pairs."""
    code = f"""
from smoothcert.datasets import decode_image, open_source
from smoothcert.job import DataSection
source = open_source(DataSection(format={format!r}, uri={str(directory)!r}, limit={pairs}))
for unit in source.units(250):
    for pair in source.read(unit):
        if len(pair.image) < 100_000:
            decode_image(pair.image, max_pixels=10**6)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(run.stdout) / 1024


def memory(root, pairs):
    for format in ("parquet", "webdataset"):
        few, many = peak_mib(format, root / format, 1000), peak_mib(format, root / format, pairs)
        print(
            f"peak memory, {format}: 1,000 pairs {few:.0f} MiB, {pairs:,} pairs {many:.0f} MiB, ratio {many / few:.3f}"
        )
    rng = np.random.default_rng(0)
    images = [rng.bytes(200_000) for _ in range(2000)]
    table = pa.table({"image": images, "caption": ["c"] * len(images)})
    for rows, note in ((100, "row groups of 20 MB"), (2000, "one row group of 400 MB")):
        (root / f"group{rows}").mkdir()
        pq.write_table(table, root / f"group{rows}" / "a.parquet", row_group_size=rows)
        print(f"peak memory, parquet, {note}: {peak_mib('parquet', root / f'group{rows}', 2000):.0f} MiB")


def main():
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        speeds(root, pairs)
        many_units(root)
        memory(root, pairs)


if __name__ == "__main__":
    main()
