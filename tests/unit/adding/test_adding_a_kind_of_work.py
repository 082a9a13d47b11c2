"""A kind of work is a section, a table, a task and its worker (brightness/), and a line for three of them.

What certification and attacks have is then there: commits, resume, quarantine, retries, views, figures and audit.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from smoothcert.encoders import load_encoder
from smoothcert.job import EncoderSection

PAIRS, DRAWS, SIGMA = 8, 8, 0.25


@pytest.fixture(scope="module")
def told(tell: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return tell("with_brightness.py")


def listed(told: dict[str, Any]) -> list[Path]:
    """The images of the pairs, in order."""
    folder = Path(told["images"]["folder"])
    with sorted(folder.glob("*.csv"))[0].open() as stream:
        return [folder / row["image"] for row in csv.DictReader(stream)][:PAIRS]


def by_number(rows: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    assert len({row["pair_id"] for row in rows}) == len(rows)
    return {int(row["pair_id"].partition("#")[2]): row for row in rows}


def test_rows_are_near_the_mean_of_the_pixels(told: dict[str, Any]) -> None:
    """Of noise alone a row is off by more than six deviations with probability 2e-9."""
    encoder = load_encoder(EncoderSection(model="bundled:digits-clip", threads=1))
    rows = by_number(told["mended"]["brightness"])
    assert rows.keys() == set(range(PAIRS))
    for number, image in enumerate(listed(told)):
        pixels = encoder.prepare(Image.open(image)) / 255.0
        within = 6 * SIGMA / sqrt(DRAWS * pixels.size)
        assert rows[number]["brightness"] == pytest.approx(pixels.mean(), abs=within)
        assert rows[number]["brightness"] != pixels.mean() and rows[number]["draws"] == DRAWS


def test_it_resumes_after_a_stop(told: dict[str, Any]) -> None:
    before, after = (
        {row["unit_id"]: row["attempt"] for row in told[name]} for name in ("before", "attempts")
    )
    assert len(before) == 1 and told["left"] == PAIRS - 2 and len(after) == 4
    assert before.items() <= after.items(), "what was committed is not done again"


def test_status_counts_its_units(told: dict[str, Any]) -> None:
    assert (
        "incomplete" in told["status_stopped"]
        and "brightness: 1 of 4 units committed" in told["status_stopped"]
    )
    assert "  complete" in told["status"] and "brightness: 4 of 4 units committed" in told["status"]


def test_a_bad_image_is_quarantined_and_mended(told: dict[str, Any]) -> None:
    broken = [str(path) for path in listed(told)].index(told["images"]["broken"])
    row = by_number(told["brightness"])[broken]
    assert (row["status"], row["error_stage"], row["error_class"]) == ("quarantined", "decode", "DecodeError")
    assert row["brightness"] is None
    (replaced,) = told["mended"]["replaced"]
    assert {name: replaced[name] for name in row} == row
    after = by_number(told["mended"]["brightness"])
    assert after.pop(broken)["status"] == "ok"
    assert after == {
        number: other for number, other in by_number(told["brightness"]).items() if number != broken
    }


def test_more_quarantined_pairs_than_accepted_are_an_error(told: dict[str, Any]) -> None:
    over = " ".join(told["over"].split())
    assert (
        f"brightness: 1 of {PAIRS} pairs are quarantined, more than output.quarantine_budget=0 allows" in over
    )
    assert "FROM brightness WHERE status = 'quarantined'" in over


def test_a_table_that_nothing_fills_has_no_retries(told: dict[str, Any]) -> None:
    assert "--table brightnes" in told["no_table"] and "did you mean 'brightness'" in told["no_table"]
    assert "use one of certificates, brightness" in told["no_table"]


def test_summary_mlflow_and_the_command_count_its_rows(told: dict[str, Any]) -> None:
    assert told["summary"]["tables"] == {"brightness": {"rows": PAIRS, "quarantined": 1}}
    assert told["mended"]["summary"]["tables"] == {"brightness": {"rows": PAIRS, "quarantined": 0}}
    for found, quarantined in ((told, 1), (told["mended"], 0)):
        tracked = found["mlflow"]["figures"]
        assert tracked["brightness/rows"][0] == PAIRS
        assert tracked["brightness/quarantined"][0] == quarantined
    assert told["mlflow"]["params"]["brightness.draws"] == str(DRAWS)
    assert f"brightness: rows of {PAIRS} pairs in table brightness, 1 quarantined" in told["said"]


def test_the_audit_holds_its_table_to_the_rules(told: dict[str, Any]) -> None:
    assert told["stopped"] == ["missing-pair: brightness"]
    assert told["findings"] == told["mended"]["findings"] == []
    assert sorted(finding.partition(":")[0] for finding in told["spoilt"]) == ["doubled-row", "not-a-number"]


def test_certificates_are_of_the_same_run_with_it_and_without(told: dict[str, Any]) -> None:
    assert told["same_run"] is True
