"""What every source owes: stable identity, limits, and planning that scales."""

import hashlib
import io
import pickle
import re
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smoothcert.datasets import write_demo_data
from smoothcert.errors import SourceError

FORMATS = ["parquet", "webdataset", "manifest"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("written")
    return {format: write_demo_data(root / format, format).directory for format in FORMATS}


@pytest.fixture(params=FORMATS)
def demo(request, written):
    """(format, directory) of 360 pairs in three files, to be left as it is."""
    return request.param, written[request.param]


@pytest.fixture
def own_demo(demo, tmp_path):
    """Like ``demo``, to be changed at will."""
    return demo[0], shutil.copytree(demo[1], tmp_path / "demo")


def test_importing_the_room_is_light():
    heavy = "{'pyarrow', 'torch', 'ray', 'mlflow', 'duckdb'}"
    code = f"import sys, smoothcert.datasets; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_opening_touches_nothing(source):
    for format in FORMATS:
        nowhere = source(format, "/nowhere/at/all")
        with pytest.raises(SourceError, match="it does not exist"):
            nowhere.digest()


def test_files_units_and_reads_agree(demo, source, read_all):
    data = source(*demo)
    files = list(data.files())
    assert [file.pairs for file in files] == [120, 120, 120]
    assert len({file.digest for file in files}) == 3
    units = list(data.units(50))
    assert sum(map(len, units)) == 360 and {unit.source_uri for unit in units} == {file.uri for file in files}
    assert len({unit.unit_id for unit in units}) == len(units)
    assert all(re.fullmatch(r"u\d{6}-[0-9a-f]{8}", unit.unit_id) for unit in units)
    pairs = read_all(data, 50)
    assert [pair.pair_id.split("#")[0] for pair in pairs] == [file.name for file in files for _ in range(120)]
    assert list(data.captions()) == [(pair.pair_id, pair.captions) for pair in pairs]


def test_a_worker_reads_units_without_planning(demo, source):
    planner, worker = source(*demo), source(*demo)
    unit = list(planner.units(50))[-1]
    assert list(worker.read(pickle.loads(pickle.dumps(unit)))) == list(planner.read(unit))
    assert worker._scanned is None


def test_a_copy_is_the_same_data(demo, source, tmp_path):
    format, directory = demo
    shutil.copytree(directory, tmp_path / "elsewhere")  # new times, new place
    first, second = source(format, directory), source(format, str(tmp_path / "elsewhere"))
    assert first.digest() == second.digest()
    assert re.fullmatch("[0-9a-f]{64}", first.digest())
    assert [u.unit_id for u in first.units(50)] == [u.unit_id for u in second.units(50)]
    ids = [[pair.pair_id for unit in s.units(50) for pair in s.read(unit)] for s in (first, second)]
    assert ids[0] == ids[1]


def test_a_change_is_other_data(own_demo, source, tmp_path):
    format, directory = own_demo[0], str(own_demo[1])
    before = source(format, directory).digest()
    assert source(format, directory, limit=350).digest() != before
    shard = sorted(p for p in (tmp_path / "demo").iterdir() if p.is_file())[1]
    content = shard.read_bytes()
    changed = content.replace(b"seven", b"eleven"[:5], 1)
    assert changed != content and len(changed) == len(content)
    shard.write_bytes(changed)
    try:
        assert source(format, directory).digest() != before
    except SourceError:
        pass
    shard.write_bytes(content)
    assert source(format, directory).digest() == before
    shard.rename(shard.with_name("renamed" + shard.suffix))
    assert source(format, directory).digest() != before


@pytest.mark.parametrize("limit", [1, 120, 121, 9999])
def test_limit_takes_the_first_pairs(demo, source, read_all, limit):
    everything = [pair.pair_id for pair in read_all(source(*demo), 50)]
    limited = source(*demo, limit=limit)
    assert [pair.pair_id for pair in read_all(limited, 50)] == everything[:limit]
    assert sum(file.pairs for file in limited.files()) == min(limit, 360)
    assert len(list(limited.captions())) == min(limit, 360)


def test_a_limit_does_not_look_at_files_it_does_not_need(own_demo, source, tmp_path):
    last = sorted(p for p in (tmp_path / "demo").iterdir() if p.is_file())[-1]
    last.write_bytes(b"rubbish")
    format, directory = own_demo
    assert sum(map(len, source(format, str(directory), limit=200).units(10))) == 200


def test_units_hold_at_least_one_pair(demo, source):
    with pytest.raises(ValueError, match="pairs_per_unit=0"):
        list(source(*demo).units(0))


def test_planning_keeps_nothing_of_parquet_rows(tmp_path, source):
    """2,000,000 rows: the plan's memory is that of units, far below a byte a row."""
    import tracemalloc

    path = tmp_path / "big.parquet"
    schema = pa.schema([("image", pa.binary()), ("caption", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        rows = 100_000
        table = pa.table(
            {"image": pa.array([b""] * rows, pa.binary()), "caption": pa.array([""] * rows)}, schema
        )
        for _ in range(20):
            writer.write_table(table)
    data = source("parquet", str(path))
    tracemalloc.start()
    count = sum(1 for _ in data.units(50))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 40_000
    assert peak < 1_600_000


def test_two_stores_hold_the_same_data(tmp_path, put, source):
    stream = io.BytesIO()
    pq.write_table(pa.table({"image": [b"x"], "caption": ["a"]}), stream)
    here, there = (
        put(f"{tmp_path}/a.parquet", stream.getvalue()),
        put("memory://same/a.parquet", stream.getvalue()),
    )
    assert source("parquet", here).digest() == source("parquet", there).digest()


def test_digest_is_what_it_says_it_is(tmp_path, put):
    from smoothcert.datasets.identity import sampled_digest

    small = bytes(range(256)) * (16 * 1024)
    assert sampled_digest(io.BytesIO(small)) == hashlib.sha256(small).hexdigest()
    large = small + b"x"
    for tail in (64 * 1024, 100_000):
        expected = hashlib.sha256(b"4194305" + large[: 64 * 1024] + large[-tail:]).hexdigest()
        assert sampled_digest(io.BytesIO(large), tail_bytes=tail) == expected
