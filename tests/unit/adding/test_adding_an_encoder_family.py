"""An encoder family is one file (chinese_clip.py) and one name: a model of it is certified and attacked like any."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

PAIRS, CLASSES = 8, ("zero", "five")


@pytest.fixture(scope="module")
def told(tell: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return tell("with_chinese_clip.py")


def test_rows_are_about_the_model_as_transformers_has_it(told: dict[str, Any]) -> None:
    """Class and caption of the clean image against transformers' own model, processor and tokenizer."""
    import io

    from PIL import Image

    model, directory = AutoModel.from_pretrained(told["model"]).eval(), Path(told["model"])
    processor, tokenizer = (each.from_pretrained(directory) for each in (AutoImageProcessor, AutoTokenizer))
    rows = sorted(told["certificates"], key=lambda row: int(row["pair_id"].partition("#")[2]))
    images = pq.read_table(rows[0]["source_uri"])["image"].to_pylist()[:PAIRS]
    texts = [f"a photo of the digit {name}" for name in CLASSES]
    with torch.inference_mode():
        pixels = [
            processor(
                Image.open(io.BytesIO(each["bytes"] if isinstance(each, dict) else each)).convert("RGB"),
                return_tensors="pt",
            )
            for each in images
        ]
        seen = torch.cat([model.get_image_features(**each).pooler_output for each in pixels])
        read = model.get_text_features(**tokenizer(texts, padding=True, return_tensors="pt")).pooler_output
        cosines = torch.nn.functional.cosine_similarity(seen[:, None], read[None], dim=-1)
    assert [row["clean_label"] for row in rows] == [CLASSES[int(best)] for best in cosines.argmax(dim=1)]
    assert {row["status"] for row in rows} == {"ok"}


def test_the_run_knows_its_content(told: dict[str, Any]) -> None:
    assert {row["encoder_digest"] for row in told["certificates"] + told["attacks"]} == {told["digest"]}
    weights = (Path(told["model"]) / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() != told["digest"], "settings count too"


def test_summary_and_mlflow_have_its_figures(told: dict[str, Any]) -> None:
    known = [row for row in told["certificates"] if row["label"] in CLASSES]
    right = sum(row["clean_label"] == row["label"] for row in known)
    assert known and told["summary"]["metrics"]["clean_accuracy"]["count"] == right
    tracked = told["mlflow"]
    assert tracked["metrics"]["clean_accuracy"] == pytest.approx(right / len(known), abs=1e-12)
    assert tracked["params"]["encoder.model"] == told["model"]
    assert tracked["tags"]["smoothcert.encoder_digest"] == told["digest"]


def test_attacks_have_its_gradients_and_the_audit_is_content(told: dict[str, Any]) -> None:
    assert len(told["attacks"]) == PAIRS and all(row["perturbation_l2"] > 0 for row in told["attacks"])
    assert told["findings"] == []


def test_its_own_check_speaks(told: dict[str, Any]) -> None:
    assert "a text does not begin with the token [CLS]" in told["refused"]
