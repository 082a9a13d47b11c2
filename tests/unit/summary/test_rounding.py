"""Numbers in sentences are never better than what they stand for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.summary.rounding import at_most, interval_text, share_text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (0.1 * 3, "0.3"),
        (0.36, "0.36"),
        (0.3649, "0.37"),
        (0.0001, "0.0001"),
        (9.91, "10"),
        (10.0, "10"),
        (1234.567, "1,235"),
        (50_000.0, "50,000"),
    ],
)
def test_at_most_is_rounded_up(number: float, text: str) -> None:
    assert at_most(number) == text


@given(st.floats(0.0, 1e9))
def test_at_most_is_never_less(number: float) -> None:
    assert float(at_most(number).replace(",", "")) >= number * (1.0 - 1e-11)


def test_all_is_only_said_of_all() -> None:
    assert [share_text(count, 10_000) for count in (0, 1, 4_858, 9_999, 10_000)] == [
        "0.0%", "0.1%", "48.6%", "99.9%", "100.0%"
    ]  # fmt: skip


def test_an_interval_is_rounded_outwards() -> None:
    assert interval_text(0.83157, 0.9999) == "83.1% to 100.0%"
    assert interval_text(0.0, 0.00012) == "0.0% to 0.1%"
    assert interval_text(0.5, 0.5) == "50.0% to 50.0%"
