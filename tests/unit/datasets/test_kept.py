"""Own columns of the data on their way into pairs, in every format."""

import io
import json
import tarfile
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smoothcert.datasets.kept import kept_values
from smoothcert.errors import ReadError, SourceError
from smoothcert.job import DataSection

ROWS = [
    {"split": "train", "camera": "left, wide", "exposure": 0.125, "shot": 7, "night": True},
    {"split": "test", "camera": None, "exposure": None, "shot": -3, "night": False},
]
KEEP = {"split": "text", "camera": "text", "exposure": "number", "shot": "integer", "night": "boolean"}
EXPECTED = [("train", "left, wide", "0.125", "7", "true"), ("test", None, None, "-3", "false")]


def table(picture):
    return pa.Table.from_pylist(
        [{"image": picture(i), "caption": f"no {i}", **row} for i, row in enumerate(ROWS)]
    )


def write(format, folder, picture):
    """The two rows in a format; gives the URI."""
    if format == "parquet":
        pq.write_table(table(picture), folder / "a.parquet")
    elif format == "arrow":
        with pa.ipc.new_stream(folder / "a.arrow", table(picture).schema) as stream:
            stream.write_table(table(picture))
    elif format == "webdataset":
        with tarfile.open(folder / "a.tar", "w") as archive:
            for i, row in enumerate(ROWS):
                for suffix, content in (
                    ("json", json.dumps({"caption": f"no {i}", **row}).encode()),
                    ("png", picture(i)),
                ):
                    member = tarfile.TarInfo(f"{i}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    else:
        for i in range(len(ROWS)):
            (folder / f"{i}.png").write_bytes(picture(i))
        rows = [{"image": f"{i}.png", "caption": f"no {i}", **row} for i, row in enumerate(ROWS)]
        if format == "csv":
            quoted = [
                ",".join("" if value is None else f'"{value}"' for value in row.values()) for row in rows
            ]
            (folder / "m.csv").write_text("\n".join([",".join(rows[0]), *quoted]) + "\n")
        elif format == "jsonl":
            (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            pq.write_table(pa.Table.from_pylist(rows), folder / "m.parquet")
            return "manifest", str(folder / "m.parquet")
        return "manifest", str(next(folder.glob("m.*")))
    return format, str(folder)


@pytest.mark.parametrize("format", ["parquet", "arrow", "webdataset", "csv", "jsonl", "paths in parquet"])
def test_every_format_hands_them_out(format, tmp_path, picture, source, read_all):
    name, uri = write(format, tmp_path, picture)
    pairs = read_all(source(name, uri, keep=KEEP))
    assert [pair.error for pair in pairs] == [None, None]
    assert [pair.kept for pair in pairs] == EXPECTED


def test_folders_spell_columns(tmp_path, picture, source, read_all):
    for split, label in (("train", "cat"), ("test", "dog")):
        (tmp_path / f"split={split}" / label).mkdir(parents=True)
        (tmp_path / f"split={split}" / label / "a.png").write_bytes(picture(1))
    pairs = read_all(source("imagefolder", str(tmp_path), keep=["split"]))
    assert [(pair.label, pair.kept) for pair in pairs] == [("dog", ("test",)), ("cat", ("train",))]
    with pytest.raises(SourceError, match=r"no column 'camera' \(data.keep\)"):
        list(source("imagefolder", str(tmp_path), keep=["camera"]).files())


@pytest.mark.parametrize("format", ["parquet", "arrow", "csv", "jsonl"])
def test_a_column_that_is_not_there_is_refused_before_work(format, tmp_path, picture, source):
    name, uri = write(format, tmp_path, picture)
    with pytest.raises(SourceError, match=r"no column 'camra' \(data.keep\) \(did you mean 'camera'"):
        list(source(name, uri, keep=["camra"]).files())


@pytest.mark.parametrize("format", ["parquet", "webdataset", "csv"])
def test_a_value_of_another_type_is_a_pair_with_an_error(format, tmp_path, picture, source, read_all):
    name, uri = write(format, tmp_path, picture)
    first, second = read_all(source(name, uri, keep={"split": "text", "exposure": "integer"}))
    assert isinstance(first.error, ReadError) and "is '0.125', not of type integer" in first.error.message
    assert second.error is None and second.kept == ("test", None)


def test_a_pair_with_another_error_keeps_what_is_known(tmp_path, picture, source, read_all):
    rows = table(picture).set_column(1, "caption", pa.array(["", "fine"]))
    pq.write_table(rows, tmp_path / "a.parquet")
    first, second = read_all(source("parquet", str(tmp_path), keep=["camera"]))
    assert type(first.error).__name__ == "CaptionError" and first.kept == ("left, wide",)


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (" spaced ", "text", "spaced"),
        (b"bytes", "text", "bytes"),
        (date(2026, 1, 2), "text", "2026-01-02"),
        (["a", 1], "text", '["a", 1]'),
        (3, "text", "3"),
        (True, "text", "true"),
        (float("nan"), "number", None),
        ("", "integer", None),
        ("1e-3", "number", "0.001"),
        (np.float64(0.1).item(), "number", "0.1"),
        (7.0, "integer", "7"),
        ("+7", "integer", "7"),
        (2**63 - 1, "integer", str(2**63 - 1)),
        ("TRUE", "boolean", "true"),
        (0, "boolean", "false"),
    ],
)
def test_values_are_written_as_sql_reads_them(value, kind, expected):
    data = DataSection(format="parquet", uri="x", keep={"a": kind})
    assert kept_values(data, {"a": value}.get) == (expected,)


@pytest.mark.parametrize(
    ("value", "kind"),
    [("yes", "boolean"), (2**63, "integer"), (1.5, "integer"), ("inf", "number"), ("1,5", "number")],
)
def test_what_sql_could_not_read_is_refused(value, kind):
    data = DataSection(format="parquet", uri="x", keep={"a": kind})
    with pytest.raises(ReadError, match=f"not of type {kind}"):
        kept_values(data, {"a": value}.get)
