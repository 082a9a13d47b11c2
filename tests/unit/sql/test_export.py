import csv
import io
import json
import math
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.errors import QueryError, StoreError
from smoothcert.sql import write_result


def written(table: pa.Table, format: str) -> bytes:
    stream = io.BytesIO()
    write_result(table, format, stream)
    assert not stream.closed
    return stream.getvalue()


MIXED = pa.table(
    {
        "text": ["a,b", 'say "hi"', "", None, "two\nlines", " edge "],
        "number": [1.5, None, math.nan, math.inf, -math.inf, 0.1],
        "list": [[1.0, None], [], None, [0.25], [math.nan], [3.0]],
        "when": [datetime(2026, 1, 2, 3, 4, 5), None, None, None, None, None],
        "flag": [True, False, None, None, None, None],
        "sum": pa.array([Decimal("12"), None, None, None, None, Decimal("99")], pa.decimal128(38, 0)),
    }
)


def test_csv_is_read_back_by_anybody() -> None:
    text = written(MIXED, "csv").decode()
    assert text.startswith("text,number,list,when,flag,sum\r\n")
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    assert [row[0] for row in rows] == ["a,b", 'say "hi"', "", "", "two\nlines", " edge "]
    assert rows[0] == ["a,b", "1.5", "[1.0, null]", "2026-01-02T03:04:05", "true", "12"]
    assert '\r\n"",nan,' in text and "\r\n,inf," in text, "empty text is quoted, NULL is nothing"
    assert len(header) == 6


@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.none() | st.floats(allow_nan=False))
    )
)
def test_any_text_survives_csv_and_json(rows: list[tuple[str, float | None]]) -> None:
    table = pa.table(
        {
            "a": pa.array([a for a, _ in rows], pa.string()),
            "b": pa.array([b for _, b in rows], pa.float64()),
        }
    )
    _, *back = csv.reader(io.StringIO(written(table, "csv").decode(), newline=""))
    assert [(a, float(b) if b else None) for a, b in back] == rows
    finite = [(a, b if b is not None and math.isfinite(b) else None) for a, b in rows]
    assert [(row["a"], row["b"]) for row in json.loads(written(table, "json"))] == finite


def test_json_is_one_array_of_objects_without_nan() -> None:
    rows = json.loads(written(MIXED, "json"), parse_constant=lambda name: pytest.fail(name))
    assert rows[0] == {
        "text": "a,b",
        "number": 1.5,
        "list": [1.0, None],
        "when": "2026-01-02T03:04:05",
        "flag": True,
        "sum": 12,
    }
    assert [row["number"] for row in rows] == [1.5, None, None, None, None, 0.1]
    assert rows[4]["list"] == [None]
    assert json.loads(written(MIXED.slice(0, 0), "json")) == []


def test_columns_of_one_name_are_all_kept() -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], names=["a", "a", "a_1"])
    assert json.loads(written(table, "json")) == [{"a": 1, "a_1": 2, "a_1_1": 3}]
    assert written(table, "csv") == b"a,a,a_1\r\n1,2,3\r\n"
    assert pq.read_table(io.BytesIO(written(table, "parquet"))).num_columns == 3


def test_parquet_comes_back_equal(tmp_path: Path) -> None:
    assert pq.read_table(io.BytesIO(written(MIXED, "parquet"))).to_pylist()[0] == MIXED.to_pylist()[0]
    write_result(MIXED, "parquet", tmp_path / "x.parquet")
    assert pq.read_table(tmp_path / "x.parquet").schema == MIXED.schema


def test_the_table_for_people_is_aligned() -> None:
    table = pa.table({"name": ["a", "long name"], "share": [0.123456789, None]})
    assert written(table, "table").decode().splitlines() == [
        "name          share",
        "---------  --------",
        "a          0.123457",
        "long name      NULL",
        "(2 rows)",
    ]
    assert written(table.slice(0, 0), "table").decode().splitlines()[-1] == "(0 rows)"
    assert written(table.slice(0, 1), "table").decode().splitlines()[-1] == "(1 row)"


def test_an_unknown_format_is_answered() -> None:
    with pytest.raises(QueryError, match=r"did you mean 'parquet'\?"):
        written(MIXED, "parqet")


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nosuch/x.csv"):
        write_result(MIXED, "csv", tmp_path / "nosuch" / "x.csv")


def fitted(table: pa.Table, width: int) -> list[str]:
    stream = io.BytesIO()
    write_result(table, "table", stream, width=width)
    return stream.getvalue().decode().splitlines()


def test_a_table_that_fits_a_terminal_is_the_same_as_in_a_pipe() -> None:
    assert "\n".join(fitted(MIXED, 200)) + "\n" == written(MIXED, "table").decode()


@pytest.mark.parametrize("width", [80, 60, 40])
def test_wide_cells_are_cut_and_short_ones_left(width: int) -> None:
    table = pa.table({"pair_id": ["a.parquet#1", "b#2"], "n": [1, 22], "caption": ["long " * 40, "short"]})
    lines = fitted(table, width)
    assert len(lines) == 5 and max(map(len, lines)) <= width
    assert "a.parquet#1" in lines[2] and "…" in lines[2] and lines[3].split() == ["b#2", "22", "short"]


def test_of_many_columns_each_has_a_line() -> None:
    table = pa.table({f"column_{i}": ["x" * 30, "y"] for i in range(20)})
    lines = fitted(table, 80)
    assert max(map(len, lines)) <= 80 and len(lines) == 2 * 21 + 1
    assert (
        lines[0].startswith("-- row 1 ") and lines[1] == f"column_0   {'x' * 30}" and lines[-1] == "(2 rows)"
    )
