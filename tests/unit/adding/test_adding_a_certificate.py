"""A certificate is one function and one entry (twice.py): every room then speaks of it, and the audit guards it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from smoothcert.certificates import fcsb

SIGMA, RADII, COSINES = 0.25, (0.03125, 0.0625), (0.3, 0.5)
NEAR = 1e-12


@pytest.fixture(scope="module")
def told(tell: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return tell("with_twice.py")


def expected(row: dict[str, Any], radius: float) -> float | None:
    """The bound by hand: T2 at twice the radius, from the row's own score."""
    value = float(fcsb(row["robustness_score_lcb"], 2 * radius, SIGMA))
    return None if value != value else value


def test_rows_have_its_bounds_and_the_schema_its_meaning(told: dict[str, Any]) -> None:
    assert len(told["certificates"]) == 8
    for row in told["certificates"]:
        assert row["twice"] == [pytest.approx(expected(row, radius), abs=NEAR) for radius in RADII]
    assert any(row["twice"][0] is not None for row in told["certificates"])
    assert told["column"]["unit"] == "cosine" and told["column"]["source"] == "theory T2"
    assert "twice the radius" in told["column"]["meaning"]


def test_a_target_on_it_is_tested(told: dict[str, Any]) -> None:
    decisions = [row["target_decision"][0] for row in told["certificates"]]
    assert "certified" in decisions
    for row, decision in zip(told["certificates"], decisions, strict=True):
        if decision == "refuted":
            assert (row["twice"][0] or 0.0) < COSINES[0]


def test_sql_has_its_function_and_its_views(told: dict[str, Any]) -> None:
    assert told["sql"] == [{"found": pytest.approx(float(fcsb(0.95, 0.1, SIGMA)), abs=NEAR)}]
    by_pair = {row["pair_id"]: row["twice"] for row in told["certificates"]}
    assert len(told["bounds"]) == 8 * len(RADII)
    for bound in told["bounds"]:
        assert bound["cosine"] == by_pair[bound["pair_id"]][RADII.index(bound["radius"])]
    grid = [share for share in told["shares"] if share["kind"] == "grid"]
    assert [(share["radius"], share["cosine"]) for share in grid] == [(r, c) for r in RADII for c in COSINES]
    for share in grid:
        place = RADII.index(share["radius"])
        held = sum((values[place] or -1.0) >= share["cosine"] for values in by_pair.values())
        assert share["certified"] == held
    assert [share["claim"] for share in told["shares"] if share["kind"] == "target"] == ["twice>=0.3@0.03125"]


def test_summary_and_mlflow_have_its_figures(told: dict[str, Any]) -> None:
    tracked = told["mlflow"]["figures"]
    for place, radius in enumerate(RADII):
        values = [row["twice"][place] for row in told["certificates"] if row["twice"][place] is not None]
        figure = told["summary"]["radii"][place]["cosines"]["twice"]
        assert figure["mean"]["count"] == len(values) and figure["vacuous"]["count"] == 8 - len(values)
        if values:
            # two readings of the run: SQL adds in the order in which its threads come
            mean = pytest.approx(sum(values) / len(values), abs=NEAR)
            assert figure["mean"]["mean"] == mean
            assert tracked[f"certified_cosine_twice/r{radius:g}"][0] == mean
        assert tracked[f"vacuous_twice/r{radius:g}"][0] == 1 - len(values) / 8
        held = sum(value >= 0.5 for value in values) / 8
        assert tracked[f"certified_share_twice_0.5/r{radius:g}"][0] == pytest.approx(held, abs=NEAR)
    decisions = [row["target_decision"][0] for row in told["certificates"]]
    certified = told["mlflow"]["metrics"]["target_certified/twice_0.3_r0.03125"]
    assert certified == decisions.count("certified") / 8
    assert told["mlflow"]["params"]["certify.targets"] == '["twice>=0.3@0.03125"]'


def test_the_page_of_certificates_lists_it(told: dict[str, Any]) -> None:
    assert (
        "| `twice` | mean | `cosine_to_clean` | `twice` | `robustness_score_lcb` | alpha | theory T2 |"
        in told["page"]
    )
    assert "`twice_bound(score, radius, sigma)`" in told["page"]


def test_attacks_are_held_against_it_and_an_honest_run_is_sound(told: dict[str, Any]) -> None:
    assert len(told["attacks"]) == 8
    # weaker than fcsb everywhere, so what attack rows show as certified is not its doing
    assert all((row["twice"][0] or 0.0) <= (row["fcsb"][0] or 0.0) for row in told["certificates"])
    assert told["findings"] == []


def test_the_audit_refuses_a_raised_bound(told: dict[str, Any]) -> None:
    refused = [each for each in told["raised"] if each.startswith("rounded-up: twice[1] is ")]
    assert len(refused) == 8
