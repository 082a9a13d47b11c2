"""The statement that says whether any row offends agrees with the one that says which; numbers are exact in SQL."""

import struct
from itertools import product

import duckdb
import numpy as np

from smoothcert.audit.expressions import number
from smoothcert.audit.rules import Check, Failing

CHECKS = (
    Check("a", "{stored} > {computed}", "'a is ' || {stored}", "b"),
    Check("b", "NOT coalesce({stored} <= 1, false)", "'b is ' || {stored}"),
    Check("a", "known AND {stored} IS NULL OR {stored} = 9", "'a is missing or ' || {computed}", "b"),
)


def test_a_screen_finds_a_row_exactly_where_a_check_fails() -> None:
    """Every row of NULL, small and large numbers, against the conditions by hand; details that are NULL too."""
    found = 0
    with duckdb.connect() as connection:
        for a, b, known in product((None, 0.0, 2.0, 9.0), (None, 1.0, 3.0), (None, False, True)):
            values = ", ".join("NULL" if each is None else str(each) for each in (a, b, known))
            source = f"FROM (VALUES ('pair', {values})) rows(pair_id, a, b, known)"
            expected = [
                a is not None and b is not None and a > b,
                b is None or b > 1,
                (known is True and a is None) or a == 9.0,
            ]
            for checks, fails in (
                (CHECKS, expected),
                *(((c,), [e]) for c, e in zip(CHECKS, expected, strict=True)),
            ):
                failing = Failing(checks, source, "known")
                rows = connection.execute(failing.rows).fetchall()
                screened = connection.execute(failing.screen).fetchall()
                assert len(rows) == sum(fails) and bool(screened) == any(fails)
                found += len(rows)
    assert found > 30


def test_numbers_are_the_same_doubles_in_sql() -> None:
    rng = np.random.default_rng(7)
    values = [
        *rng.normal(size=200),
        *(10.0 ** rng.uniform(-300, 300, 200)),
        0.1,
        -0.0,
        5e-324,
        1.7976931348623157e308,
        3,
    ]
    with duckdb.connect() as connection:
        (row,) = connection.execute(f"SELECT {', '.join(f'0 + {number(v)}' for v in values if v)}").fetchall()
        assert [struct.pack("d", v) for v in row] == [struct.pack("d", v) for v in values if v]
        for value in (float("inf"), -float("inf"), -1.5):
            assert connection.execute(f"SELECT 1-{number(value)}, typeof({number(value)})").fetchall() == [
                (1 - value, "DOUBLE")
            ]
