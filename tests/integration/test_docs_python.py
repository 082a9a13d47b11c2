"""The Python of docs/defences.md and docs/encoders.md, run as it stands but for numbers and places made small.

That of docs/python.md runs in test_api.py. Not run: the model of timm in docs/encoders.md (timm is no dependency and
wants a download), and the line of docs/defences.md that patches a pretrained CLIP (tests/unit/engine covers it).
"""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from smoothcert.datasets import load_digits_pairs
from smoothcert.encoders import ModuleEncoder

ROOT = Path(__file__).parents[2]
pages = SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "unit" / "test_docs.py")))
NOT_RUN = ("timm.create_model",)


def snippet(page: str, holds: str) -> str:
    (found,) = [text for name, text in pages.blocks("python") if name == page and holds in text]
    return str(found)


def execute(text: str, **names: Any) -> dict[str, Any]:
    exec(compile(text, "a page", "exec"), names)  # what a reader would paste
    return names


@pytest.fixture(autouse=True)
def in_a_place_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_snippet_is_run_or_named() -> None:
    """Two here of each page, those of python.md in test_api.py."""
    others = [
        text
        for page, text in pages.blocks("python")
        if page != "docs/python.md" and not any(each in text for each in NOT_RUN)
    ]
    run = (
        ("docs/defences.md", "class Blur"),
        ("docs/defences.md", "SmoothedEncoder"),
        ("docs/encoders.md", "torch.load"),
    )
    assert sorted(others) == sorted(snippet(*each) for each in run)


def test_an_own_purifier() -> None:
    names = execute(snippet("docs/defences.md", "class Blur"))
    assert names["make"](None, 0.25)(torch.rand(2, 3, 8, 8)).shape == (2, 3, 8, 8)
    pixels = torch.rand(1, 3, 8, 8)
    assert torch.equal(names["make"](None, 0.1)(pixels), pixels)


def test_a_smoothed_encoder_in_code() -> None:
    text = snippet("docs/defences.md", "SmoothedEncoder").replace("max_draws=1000", "max_draws=16")
    *lines, last = text.strip().splitlines()
    assert last.startswith("model = smoothed.patch(CLIPModel")
    images = [image for image, _, _ in load_digits_pairs("test")[:2]]
    names = execute("\n".join(lines), images=images)
    assert names["features"].shape[0] == len(names["rows"]) == 2
    assert torch.allclose(names["features"].norm(dim=1), torch.ones(2), atol=1e-5)
    assert (Path("smoothed")).is_dir()


def test_an_own_encoder() -> None:
    network = torch.nn.Sequential(torch.nn.AvgPool2d(56), torch.nn.Flatten(), torch.nn.Linear(48, 5))
    torch.save(network.state_dict(), "mine.pt")
    text = snippet("docs/encoders.md", "torch.load").replace("/models/mine.pt", "mine.pt")
    make = execute(text, MyNetwork=lambda: network)["make"]
    encoder = make(torch.device("cpu"), torch.float32)
    assert isinstance(encoder, ModuleEncoder)
    assert encoder.encode_images(torch.rand(2, 3, 224, 224)).shape == (2, 5)
