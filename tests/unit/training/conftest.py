"""A tiny CLIP, a few dozen images, and a job that trains on them."""

from __future__ import annotations

import io
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from smoothcert.job import Job

TINY = {
    "batch": 8,
    "steps": 6,
    "validate_every": 2,
    "validation": 0.25,
    "purifier": {"channels": [8], "patch": 4},
    "mapper": {"groups": 4, "width": 8, "heads": 2, "blocks": 1},
    "adversary": {"budget": 0.5, "steps": 2},
}
PAIRS = 40


def png(number: int) -> bytes:
    """A blot on black, bright for even numbers: something that noise hides and a network finds."""
    generator = np.random.default_rng(number)
    pixels = np.zeros((24, 24, 3), dtype=np.uint8)
    row, column = generator.integers(2, 14, 2)
    pixels[row : row + 8, column : column + 8] = (
        generator.integers(120, 255, 3) if number % 2 else (60, 255, 60)
    )
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("training")
    tiny = runpy.run_path(str(Path(__file__).parents[1] / "encoders" / "tiny_models.py"))
    tiny["build_clip"](place / "clip")
    table = {
        "image": [png(number) for number in range(PAIRS)],
        "caption": ["a photo of the cat"] * PAIRS,
        "label": ["dog" if number % 2 else "cat" for number in range(PAIRS)],
    }
    (place / "data").mkdir()
    pq.write_table(pa.table(table), place / "data" / "blots.parquet")
    return place


@pytest.fixture
def make_job(folder: Path, tmp_path: Path) -> Callable[..., Job]:
    def make(method: str = "psm", **train: Any) -> Job:
        settings = {**TINY, "method": method, "out": str(tmp_path / "out"), **train}
        more = {"zero_shot": {"labels": ["cat", "dog"], "prompts": ["a photo of the {label}"]}}
        return Job.model_validate(
            {
                "name": "tiny",
                "data": {"format": "parquet", "uri": str(folder / "data")},
                "encoder": {"model": str(folder / "clip"), "device": "cpu"},
                "certify": {"sigma": 0.25},
                "tracking": {"enabled": False},
                "output": {"runs": str(tmp_path / "runs")},
                "train": settings,
                **(more if method == "tecoa" else {}),
            }
        )

    return make
