"""An attack is one file (shift.py) and one entry: rows, views, figures and the audit then speak of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from smoothcert.datasets import write_demo_data
from smoothcert.encoders import load_encoder
from smoothcert.job import EncoderSection

SMALL, LARGE, THRESHOLD, PAIRS = 0.05, 20.0, 0.95, 8


@pytest.fixture(scope="module")
def told(tell: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return tell("with_shift.py")


def shifted(x: np.ndarray, sign: float) -> np.ndarray:
    """x + sign t, cut off at black and white, for the t that makes the step as long as the budget; by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        step = np.clip(x + sign * middle, 0.0, 1.0) - x
        low, high = (middle, high) if np.linalg.norm(step) <= LARGE else (low, middle)
    return np.clip(x + sign * low, 0.0, 1.0)


def test_rows_have_its_outcome(told: dict[str, Any], tmp_path: Path) -> None:
    """Against the same search by hand."""
    encoder = load_encoder(EncoderSection(model="bundled:digits-clip", threads=1))
    write_demo_data(tmp_path, "parquet")
    images = pq.read_table(sorted(tmp_path.glob("*.parquet"))[0])["image"].to_pylist()
    found = {
        int(row["pair_id"].partition("#")[2]): row
        for row in told["attacks"]
        if row["subject"] == "bare" and row["budget"] == LARGE
    }
    assert sorted(found) == list(range(PAIRS))
    for number, row in found.items():
        image = images[number]["bytes"] if isinstance(images[number], dict) else images[number]
        x = encoder.prepare(Image.open(io.BytesIO(image))) / 255.0
        batch = torch.from_numpy(np.stack([x, shifted(x, 1.0), shifted(x, -1.0)])).float()
        clean, brighter, darker = encoder.encode_images(batch)
        first, second = float(clean @ brighter), float(clean @ darker)
        left_early = first < THRESHOLD  # what is solved is not searched further
        assert row["cosine_to_clean"] == pytest.approx(first if left_early else min(first, second), abs=1e-4)
        assert (row["steps"], row["restarts"]) == ((2, 1) if left_early else (3, 2))
        assert row["perturbation_l2"] == pytest.approx(LARGE, rel=1e-4) and row["perturbation_l2"] <= LARGE


def test_views_count_its_successes(told: dict[str, Any]) -> None:
    assert len(told["attack_success"]) == 4
    for rate in told["attack_success"]:
        rows = [
            row
            for row in told["attacks"]
            if (row["subject"], row["budget"]) == (rate["subject"], rate["budget"])
        ]
        assert rate["wrong_after"] == sum(row["cosine_to_clean"] < THRESHOLD for row in rows)
        assert (
            rate["wrong_after"] == (PAIRS if rate["budget"] == LARGE else 0) and rate["pairs_asked"] == PAIRS
        )
        assert rate["right_before"] == sum(row["clean_cosine"] >= THRESHOLD for row in rows)
    assert " shift " in told["said"] and "shift l2 " in told["status"]


def test_summary_and_mlflow_count_its_rows(told: dict[str, Any]) -> None:
    assert len(told["attacks"]) == 4 * PAIRS
    assert told["summary"]["tables"] == {"attacks": {"rows": 4 * PAIRS, "quarantined": 0}}
    tracked = told["mlflow"]["figures"]
    assert tracked["attacks/rows"][0] == 4 * PAIRS and tracked["attacks/quarantined"][0] == 0


def test_mlflow_has_its_success(told: dict[str, Any]) -> None:
    """As a metric of all attacks with its question, and by its name in the table of figures."""
    tracked, (attack_id,) = told["mlflow"], {row["attack_id"] for row in told["attacks"]}
    for subject in ("bare", "smoothed"):
        for budget in (SMALL, LARGE):
            right = [
                row
                for row in told["attacks"]
                if (row["subject"], row["budget"]) == (subject, budget) and row["clean_cosine"] >= THRESHOLD
            ]
            turned = sum(row["cosine_to_clean"] < THRESHOLD for row in right) / len(right)
            name = f"success_among_right/divergence_{THRESHOLD}_{subject}_l2_{budget:g}"
            assert tracked["metrics"][name] == tracked["figures"][f"{name}/shift_{attack_id}"][0] == turned
    assert '"attack": "shift"' in tracked["params"]["attacks"]


def test_the_audit_holds_it_against_the_certificates(told: dict[str, Any]) -> None:
    assert told["findings"] == []
    within = [row for row in told["attacks"] if row["budget"] == SMALL and row["subject"] == "smoothed"]
    assert all(row["certified_to_smoothed"] > 0.5 and row["violation"] is False for row in within)
    assert len(within) == PAIRS


def test_an_unknown_setting_is_refused_before_any_work(told: dict[str, Any]) -> None:
    assert "attack 'shift' has no setting 'step'" in told["refused"] and "early_stop" in told["refused"]
