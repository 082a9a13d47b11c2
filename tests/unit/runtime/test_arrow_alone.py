"""pyarrow without pandas: nothing of it is loaded by arrays and Parquet, and what needs it gets it all the same."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smoothcert.datasets import open_source
from smoothcert.datasets.labels import LabelTally
from smoothcert.datasets.questions import read_questions
from smoothcert.job import DataSection
from smoothcert.job.answer import AnswerSection

CODE = """
import sys
from smoothcert.runtime.arrow_alone import leave_pandas_out
leave_pandas_out()
import pyarrow as pa
import pyarrow.parquet as pq
table = pa.table({"a": [1, None], "b": pa.array([0.5, 2.0], pa.float64())})
pq.write_table(table, sys.argv[1])
assert pq.read_table(sys.argv[1]).to_pylist() == [{"a": 1, "b": 0.5}, {"a": None, "b": 2.0}]
assert "pandas" not in sys.modules
frame = table.to_pandas()
import pandas as pd
assert isinstance(frame, pd.DataFrame) and frame["b"].tolist() == [0.5, 2.0]
assert pa.array(pd.Series([1.0, float("nan")])).null_count == 1, "and then it knows series"
leave_pandas_out()
print("done")
"""
ALONE = """
import json, runpy, sys
from smoothcert.runtime.arrow_alone import leave_pandas_out
leave_pandas_out()
here = runpy.run_path(sys.argv[1])
assert here["texts"](sys.argv[2], "caption", here["PLAIN"])
assert "pandas" not in sys.modules, "sources without nanoseconds do without it"
print(json.dumps([here["texts"](sys.argv[2], label) for label in ("when", "took")]))
"""
PLAIN = ("when_us",)
KEPT = ("when", "there", "took", "clock", "days", "nested", "when_us")
"""Columns of the table; all but the last hold nanoseconds."""


def texts(folder, label, kept=KEPT):
    """Whatever of the pairs, labels and questions of a folder becomes text."""
    found = []
    for format in ("parquet", "arrow"):
        source = open_source(
            DataSection(format=format, uri=str(folder), columns={"label": label}, keep=list(kept))
        )
        tally = LabelTally()
        for unit in source.units(10):
            found += [[pair.pair_id, pair.label, pair.kept, str(pair.error)] for pair in source.read(unit)]
            source.count_labels(unit, tally)
        found.append(sorted(tally.names.items()))
    if label != "caption":
        section = AnswerSection(
            model="-",
            questions=f"{folder}/a.parquet",
            format="parquet",
            columns={"pair": label, "question": "caption", "answers": None, "id": "took"},
        )
        asked = read_questions(section)
        found.append([asked.digest, *(each.question_id for each in asked.of(found[0][1]))])
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two pairs, in Parquet and in Arrow; times that are whole microseconds, and others."""
    numbers = [1_700_000_000_123_456_789, 3_723_000_001_000]
    when = pa.array(numbers, pa.timestamp("ns"))
    columns = {
        "image": [b"no image", b"nor this"],
        "caption": ["one", "two"],
        "when": when,
        "there": pa.array(numbers, pa.timestamp("ns", "Europe/Berlin")),
        "took": pa.array(numbers, pa.duration("ns")),
        "clock": pa.array([number % 86_400_000_000_000 for number in numbers], pa.time64("ns")),
        "days": when.dictionary_encode(),
        "nested": pa.StructArray.from_arrays(
            [pa.array([[numbers[0]], []], pa.list_(pa.timestamp("ns")))], ["t"]
        ),
        "when_us": pa.array([1, 2], pa.timestamp("us")),
    }
    where = tmp_path_factory.mktemp("times")
    table = pa.table(columns)
    pq.write_table(table, where / "a.parquet")
    with pa.ipc.new_stream(where / "a.arrow", table.schema) as stream:
        stream.write_table(table)
    return where


def test_pandas_is_loaded_when_it_is_asked_for(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CODE, tmp_path / "a.parquet"], capture_output=True, text=True
    )
    assert done.stdout == "done\n", done.stderr


def test_nanoseconds_have_one_text_in_every_process(folder):
    done = subprocess.run(
        [sys.executable, "-c", ALONE, Path(__file__), folder], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    shown = json.dumps([texts(folder, label) for label in ("when", "took")])
    assert json.loads(done.stdout) == json.loads(shown)
    assert "2023-11-14T22:13:20.123456789" in shown and "0 days 01:02:03.000001" in shown
