import dataclasses
import math
from typing import Any

import pyarrow as pa
import pytest

from smoothcert.errors import StoreError
from smoothcert.store import CERTIFICATES, rows_to_table

CONSTANTS = {"run_id": "r", "attempt": "a"}


def table_of(*rows: Any) -> pa.Table:
    return rows_to_table(rows, CERTIFICATES, **CONSTANTS)


def test_a_row_comes_back_as_it_went_in(make: Any) -> None:
    row = make.ok_row("u1", "p1")
    [back] = table_of(row).to_pylist()
    expected = {k: list(v) if isinstance(v, tuple) else v for k, v in row.items()}
    assert back == {**expected, **CONSTANTS}


def test_the_schema_is_exactly_the_published_one(make: Any) -> None:
    assert table_of(make.ok_row("u1", "p1")).schema.equals(CERTIFICATES.arrow, check_metadata=True)
    assert table_of().schema.equals(CERTIFICATES.arrow, check_metadata=True)


def test_dataclasses_are_rows_too(make: Any) -> None:
    row = make.ok_row("u1", "p1")
    kind = dataclasses.make_dataclass("Row", list(row), frozen=True)
    assert table_of(kind(**row)).equals(table_of(row))


def test_the_engines_rows_fit(make: Any) -> None:
    from smoothcert.engine.rows import CertificateRow

    names = {field.name for field in dataclasses.fields(CertificateRow)}
    assert names | set(CONSTANTS) == {column.name for column in CERTIFICATES.columns}
    assert table_of(CertificateRow(**make.ok_row("u1", "p1"))).equals(table_of(make.ok_row("u1", "p1")))


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("smooth_norm", math.nan, "NaN"),
        ("fcsb", (0.5, math.nan), "NaN"),
        ("log_e_value", (math.nan, 1.0), "NaN"),
        ("smooth_norm_lcb", math.inf, "infinity"),
        ("angular", (-math.inf, 0.1), "infinity"),
        ("pair_id", None, "NULL"),
        ("status", "fine", "fine"),
        ("target_decision", ("certified", "maybe"), "maybe"),
        ("draws", 1.5, "int32"),
        ("draws", 2**40, "int32"),
        ("caption", 7, "string"),
    ],
)
def test_what_a_column_may_not_hold_is_refused(make: Any, column: str, value: Any, said: str) -> None:
    with pytest.raises(StoreError, match=said) as caught:
        table_of(make.ok_row("u1", "p0"), {**make.ok_row("u1", "p1"), column: value})
    assert column in str(caught.value)


def test_an_e_value_may_be_infinite(make: Any) -> None:
    table = table_of(make.ok_row("u1", "p1", log_e_value=(math.inf, -math.inf)))
    assert table["log_e_value"].to_pylist() == [[math.inf, -math.inf]]


def test_unknown_and_missing_columns_are_named(make: Any) -> None:
    row = make.ok_row("u1", "p1")
    with pytest.raises(StoreError, match=r"no column 'sigm' \(did you mean 'sigma'\?\)"):
        table_of({**row, "sigm": 1.0})
    del row["sigma"]
    with pytest.raises(StoreError, match="lacks the column 'sigma'"):
        table_of(row)
    with pytest.raises(StoreError, match="'run_id' of 'certificates' is given twice"):
        table_of({**make.ok_row("u1", "p1"), "run_id": "x"})


def test_a_later_row_of_another_shape_is_noticed(make: Any) -> None:
    other = make.ok_row("u1", "p2")
    del other["draws"]
    with pytest.raises(StoreError, match="'draws'"):
        table_of(make.ok_row("u1", "p1"), other)


def test_a_pair_twice_in_one_part_is_refused(make: Any) -> None:
    with pytest.raises(StoreError, match="'p1' occurs twice"):
        table_of(make.ok_row("u1", "p1"), make.quarantined_row("u1", "p1"))
