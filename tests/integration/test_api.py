"""`import smoothcert as sc`: the numbers of a job for one image, a batch and a run; and nothing heavy at import."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import smoothcert as sc
from smoothcert.datasets import write_demo_data
from smoothcert.errors import ExecutorError, JobError, QueryError

LABELS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
CERTIFY = {"alpha": 0.01, "pilot_draws": 8, "radii": (0.0625, 0.125), "cosines": (0.5, 0.8), "seed": 5}
NOT_NUMBERS = {"run_id", "unit_id", "attempt", "source_uri"}
PAIRS = 12


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    write_demo_data(folder, "parquet")
    return folder


@pytest.fixture(scope="module")
def job(data: Path, tmp_path_factory: pytest.TempPathFactory) -> sc.Job:
    """A job built in code."""
    return sc.Job.model_validate(
        {
            "name": "digits",
            "data": {"format": "parquet", "uri": str(data), "limit": PAIRS},
            "encoder": {"model": "bundled:digits-clip", "slots": 4, "threads": 1},
            "certify": {**CERTIFY, "sigma": 0.25, "max_draws": 24},
            "zero_shot": {"labels": LABELS, "prompts": ["a photo of the digit {label}"]},
            "output": {"runs": str(tmp_path_factory.mktemp("runs"))},
            "tracking": {"enabled": False},
        }
    )


@pytest.fixture(scope="module")
def run(job: sc.Job) -> Iterator[sc.Run]:
    with sc.run(job) as opened:
        yield opened


@pytest.fixture(scope="module")
def images(data: Path) -> list[bytes]:
    file = min(data.glob("*.parquet"))
    return [
        each["bytes"] if isinstance(each, dict) else each for each in pq.read_table(file)["image"].to_pylist()
    ][:PAIRS]


@pytest.fixture(scope="module")
def encoder() -> sc.Encoder:
    return sc.load_encoder(sc.EncoderSection(model="bundled:digits-clip", device="cpu"))


def as_rows(run: sc.Run) -> list[dict[str, Any]]:
    """In the order of the data: rows come in the order in which pairs stopped."""
    rows = run.to_arrow().to_pylist()
    return sorted(rows, key=lambda row: int(row["pair_id"].rpartition("#")[2]))


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == pytest.approx(other, abs=1e-5)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def test_a_batch_has_the_numbers_of_the_job(run: sc.Run, images: list[bytes], encoder: sc.Encoder) -> None:
    expected = as_rows(run)
    assert len(expected) == PAIRS and {row["status"] for row in expected} == {"ok"}
    texts = [f"a photo of the digit {label}" for label in LABELS]
    found = sc.certify(
        images, encoder, sigma=0.25, draws=24, texts=texts, captions=[row["caption"] for row in expected],
        pair_ids=[row["pair_id"] for row in expected], **CERTIFY,
    )  # fmt: skip
    named = {"clean_label", "predicted_label", "class_rival", "vote_label"}
    for mine, theirs in zip(found, expected, strict=True):
        wrong = {
            name: (mine[name], value)
            for name, value in theirs.items()
            if name not in NOT_NUMBERS | named | {"label"} and not same(mine[name], value)
        }
        assert not wrong
        for name in named:
            assert mine[name] == (theirs[name] and f"a photo of the digit {theirs[name]}")
    other_noise = sc.certify(images, encoder, sigma=0.25, draws=24, **CERTIFY)
    assert other_noise["smooth_norm_lcb"] != found["smooth_norm_lcb"], "names key the noise"


def test_an_image_is_the_same_in_every_form(images: list[bytes], encoder: sc.Encoder, tmp_path: Path) -> None:
    picture = Image.open(io.BytesIO(images[0])).convert("RGB")
    pixels = torch.from_numpy(np.moveaxis(np.asarray(picture), 2, 0).copy())
    (tmp_path / "x.png").write_bytes(images[0])
    forms = [
        images[0],
        picture,
        pixels,
        pixels.float() / 255,
        pixels.double() / 255,
        np.asarray(picture),
        tmp_path / "x.png",
    ]
    norms = [
        sc.certify(form, encoder, sigma=0.25, draws=40, pilot_draws=4)["smooth_norm_lcb"] for form in forms
    ]
    assert norms == [norms[0]] * len(forms) and norms[0][0] is not None
    batch = sc.certify(pixels[None], "bundled:digits-clip", sigma=0.25, draws=40, pilot_draws=4)
    assert len(batch) == 1 and batch["smooth_norm_lcb"] == norms[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.full((3, 8, 8), 0.3)}, r"not k/255.*round it first"),
        ({"images": torch.full((3, 8, 8), 2.0)}, r"outside of \[0, 1\].*before any normalisation"),
        ({"images": torch.zeros((8, 8))}, r"has shape \(8, 8\)"),
        ({"images": np.zeros((8, 8, 3), np.int64)}, "holds int64"),
        ({"images": "nowhere.png"}, "cannot read 'nowhere.png'"),
        ({"images": []}, "no images"),
        ({"texts": "a cat"}, "is one text.*a list"),
        ({"captions": "a cat"}, "captions are not one for each of 1 images"),
        ({"sigma": -1.0}, "certify.sigma"),
        ({"radius": 0.1}, "radius"),
        ({"encoder": "bundled:digit-clip"}, "did you mean 'bundled:digits-clip'"),
    ],
)
def test_wrong_arguments_say_what_to_give(change: dict[str, Any], message: str, encoder: sc.Encoder) -> None:
    asked = {
        "images": torch.zeros((3, 8, 8), dtype=torch.uint8),
        "encoder": encoder,
        "sigma": 0.25,
        "draws": 4,
        **change,
    }
    with pytest.raises(Exception, match=f"(?s){message}") as caught:
        sc.certify(asked.pop("images"), asked.pop("encoder"), **asked)
    assert type(caught.value).__module__ == "smoothcert.errors"


def test_a_damaged_image_costs_only_its_own_row(images: list[bytes], encoder: sc.Encoder) -> None:
    found = sc.certify([images[0], b"<b>no image</b>"], encoder, sigma=0.25, draws=8, pilot_draws=4)
    assert found["status"] == ["ok", "quarantined"] and found[1]["error_message"]
    assert "quarantined" in repr(found) and repr(found).startswith("2 images, sigma 0.25")
    hostile = sc.certify(
        [images[0]], encoder, sigma=0.25, draws=8, pilot_draws=4, pair_ids=["<script>alert(1)</script>"]
    )
    page = hostile._repr_html_()
    assert "<script>" not in page and "&lt;script&gt;" in page
    with pytest.raises(KeyError, match="no column 'norm'"):
        hostile["norm"]


def test_a_run_opens_as_relation_frame_and_table(run: sc.Run, job: sc.Job) -> None:
    with sc.open_run(run.url) as opened:
        assert opened.job == job and opened.run_id == run.run_id
        relation = opened.sql("SELECT pair_id, smooth_norm_lcb AS n FROM certificates")
        assert isinstance(relation, duckdb.DuckDBPyRelation)
        [(top,)] = relation.aggregate("max(n)").fetchall()
        frame, table = (
            opened.to_pandas(),
            opened.to_arrow("SELECT max(smooth_norm_lcb) AS top FROM certificates"),
        )
        assert len(frame) == PAIRS and top == frame["smooth_norm_lcb"].max() == table["top"][0].as_py()
        assert opened.summary().ok == PAIRS
        assert f"{PAIRS} pairs certified" in repr(opened)
        assert opened._repr_html_().count("<tr>") == 1 + len(job.certify.radii)
        with pytest.raises(QueryError, match="read-only"):
            opened.sql("DROP VIEW certificates")


def test_a_finished_job_runs_again_for_nothing_and_a_failing_one_says_what_is_missing(
    run: sc.Run, job: sc.Job
) -> None:
    with sc.run(job) as again:
        assert again.url == run.url and len(again.to_arrow()) == PAIRS
    assert (Path(run.url) / "summary.json").exists()
    with pytest.raises(JobError, match="data.format='parket'"):
        sc.parse_job("name: x\ndata: {format: parket, uri: x}\nencoder: {model: x}\ncertify: {sigma: 0.1}")
    assert issubclass(ExecutorError, Exception)


NEVER = {"torch", "ray", "mlflow", "transformers"}
WITHOUT = {
    "smoothcert": {"numpy", "pyarrow", "pydantic", "duckdb", "scipy", *NEVER},
    "smoothcert.cli.main": {"numpy", "pyarrow", "duckdb", "scipy", *NEVER},
    "smoothcert.runtime.status": {"duckdb", "scipy", *NEVER},
    "smoothcert.sql.query": {"scipy", *NEVER},
    "smoothcert.summary.comparison": NEVER,
}
"""Modules, one imported after the other, and what has not been loaded by then."""
LOOK = """
import importlib, json, sys
before, loaded = set(sys.modules), {}
for module, without in json.loads(sys.argv[1]).items():
    importlib.import_module(module)
    loaded[module] = sorted(set(without) & set(sys.modules))
    if module == "smoothcert":
        count, names = len(set(sys.modules) - before), dir(sys.modules[module])
print(json.dumps([count, names, loaded]))
"""


def test_importing_costs_nothing_and_completes_names() -> None:
    asked = json.dumps({module: sorted(without) for module, without in WITHOUT.items()})
    out = subprocess.run(
        [sys.executable, "-c", LOOK, asked], capture_output=True, text=True, check=True
    ).stdout
    modules, names, loaded = json.loads(out)
    assert loaded == {module: [] for module in WITHOUT}
    assert modules < 60 and "certify" in names
    assert sorted(sc.__all__) == sc.__all__ and all(hasattr(sc, name) for name in sc.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = sc.nonsense  # type: ignore[attr-defined]


def test_the_page_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block in the names of those before it; the last lines of blocks show something."""
    page = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert len(names["found"]) == 3 and all(norm > 0.5 for norm in names["found"]["smooth_norm_lcb"])
    assert names["difference"].both == 20 and len(names["run"].to_pandas()) == 20
    for opened in (names["run"], names["other"]):
        opened.close()
