"""A metric is one entry (steady.py): summary, MLflow and the page of figures then have it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from scipy.stats import binomtest


@pytest.fixture(scope="module")
def told(tell: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return tell("with_steady.py")


def test_summary_and_mlflow_count_it(told: dict[str, Any]) -> None:
    norms = [row["smooth_norm_lcb"] for row in told["certificates"] if row["status"] == "ok"]
    count = sum(norm is not None and norm >= 0.9 for norm in norms)
    assert 0 < count < len(norms), "a figure of all or none would show little"
    between = binomtest(count, len(norms)).proportion_ci(0.95, "exact")
    share = told["summary"]["metrics"]["steady"]
    assert (share["count"], share["of"], share["share"]) == (count, len(norms), count / len(norms))
    assert [share["low"], share["high"]] == pytest.approx([between.low, between.high], abs=1e-6)
    assert told["mlflow"]["metrics"]["steady"] == count / len(norms)
    assert told["mlflow"]["figures"]["steady"] == [count / len(norms), share["low"], share["high"]]


def test_it_is_no_matter_of_the_audit(told: dict[str, Any]) -> None:
    assert told["findings"] == []


def test_the_page_lists_it(told: dict[str, Any]) -> None:
    assert (
        "| `steady` | share | pairs whose smoothed feature keeps nine tenths of its length |" in told["page"]
    )
