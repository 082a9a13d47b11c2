"""A format of data is one file (hex_lines.py) and one entry: its pairs are planned, certified, quarantined, audited."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BROKEN = "a.hex#4"


@pytest.fixture(scope="module")
def told(tell: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return tell("with_hex_lines.py")


def test_the_plan_counts_its_pairs(told: dict[str, Any]) -> None:
    assert "8 in 2 files, 3 units" in told["plan"]


def test_every_line_is_a_row(told: dict[str, Any]) -> None:
    rows = {row["pair_id"]: row for row in told["certificates"]}
    lines = {f"{name}#{i}": line for name, all_of in told["lines"].items() for i, line in enumerate(all_of)}
    assert rows.keys() == lines.keys() and len(rows) == 8
    for identity, line in lines.items():
        if identity != BROKEN:
            label, caption, _ = line.split("\t")
            row = rows[identity]
            assert (row["status"], row["label"], row["captions"]) == ("ok", label, [caption])


def test_units_are_read_by_range(told: dict[str, Any]) -> None:
    assert len(told["units"]) == 8  # of two pairs at most, and the same without their first pair
    for unit in told["units"]:
        lines = told["lines"][unit["name"]][unit["start"] : unit["stop"]]
        broken = [f"{unit['name']}#{unit['start'] + i}" == BROKEN for i in range(len(lines))]
        assert unit["images"] == [
            None if bad else hashlib.sha256(bytes.fromhex(line.split("\t")[2])).hexdigest()
            for line, bad in zip(lines, broken, strict=True)
        ]


def test_a_broken_line_is_a_quarantined_row(told: dict[str, Any]) -> None:
    (quarantined,) = told["quarantine"]
    assert (quarantined["pair_id"], quarantined["error_class"]) == (BROKEN, "ReadError")
    assert "not label, caption and hex" in quarantined["error_message"]
    assert told["summary"]["quarantined"]["count"] == 1
    assert told["mlflow"]["metrics"]["quarantined"] == 1 / 8 and told["mlflow"]["figures"]["ok"][0] == 7


def test_mlflow_knows_the_data(told: dict[str, Any]) -> None:
    (folder,) = {str(Path(row["source_uri"]).parent) for row in told["certificates"]}
    tracked = told["mlflow"]
    assert tracked["params"]["data.format"] == tracked["data"]["format"] == "hexlines"
    assert (tracked["data"]["uri"], tracked["data"]["num_rows"]) == (folder, 8)


def test_the_audit_knows_the_place_of_its_pairs(told: dict[str, Any]) -> None:
    assert told["findings"] == []
    assert [each.split(":")[0] for each in told["exchanged"]].count("foreign-pair") == 2
