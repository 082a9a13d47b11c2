"""``smoothcert reproduce``: one pair of a run, certified once more."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from smoothcert.cli.main import app
from smoothcert.datasets import write_demo_data

JOB = """
name: again
data: {format: manifest, uri: "%s/digits", limit: 12}
encoder: {model: "bundled:digits-clip", slots: 4, chunk: 8, threads: 1, device: cpu}
certify:
  {sigma: 0.25, alpha: 0.05, pilot_draws: 15, max_draws: 96, radii: [0.0625], cosines: [0.5],
   targets: [{certificate: angular, cosine: 0.5, radius: 0.0625}]}
zero_shot: {labels: [zero, one, two], prompts: ["a photo of the digit {label}"]}
retrieval: {candidates: 5, k: 1}
output: {runs: "%s/runs", run: mine, quarantine_budget: 1.0}
tracking: {enabled: false}
"""


def smoothcert(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=True)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 digits with one image that cannot be decoded."""
    where = tmp_path_factory.mktemp("reproduce")
    write_demo_data(where / "digits", "manifest")
    pictures = sorted((where / "digits").rglob("*.png"))
    pictures[3].write_bytes(b"not an image")
    (where / "job.yaml").write_text(JOB % (where, where))
    done = smoothcert("certify", str(where / "job.yaml"))
    assert done.exit_code == 0, done.output
    return where


def rows(here: Path) -> dict[str, list[str]]:
    sql = "SELECT status, list(pair_id ORDER BY pair_id) AS pairs FROM certificates GROUP BY 1"
    told = smoothcert("query", str(here / "runs/mine"), sql, "--format", "json")
    found = json.loads(told.stdout)
    return {row["status"]: row["pairs"] for row in found}


def test_every_pair_has_the_same_row_again(here: Path) -> None:
    """Adaptive draws, texts and a pool included, and the pair that cannot be decoded."""
    pairs = rows(here)
    assert len(pairs["ok"]) == 11 and len(pairs["quarantined"]) == 1
    for pair in [*pairs["ok"][:3], *pairs["quarantined"]]:
        told = smoothcert("reproduce", str(here / "runs/mine"), pair)
        assert told.exit_code == 0, told.output
        assert "the same in all" in told.output


def test_another_image_shows(here: Path, tmp_path: Path) -> None:
    pairs = rows(here)["ok"]
    pictures = sorted((here / "digits").rglob("*.png"))
    other = next(p for p in pictures[20:] if p.read_bytes() != pictures[0].read_bytes())
    kept = {picture: picture.read_bytes() for picture in pictures[:12]}
    try:
        for picture in kept:
            shutil.copyfile(other, picture)
        told = smoothcert("reproduce", str(here / "runs/mine"), pairs[0])
    finally:
        for picture, data in kept.items():
            picture.write_bytes(data)
    assert told.exit_code == 1, told.output
    assert "image_digest" in told.output and "columns differ by more than 1e-05" in told.output


def test_what_cannot_be_reproduced_is_said(here: Path) -> None:
    run = str(here / "runs/mine")
    none = smoothcert("reproduce", run, "no such pair")
    assert "has no row of the pair 'no such pair'" in str(none.exception or none.output)
    changed = smoothcert("reproduce", run, rows(here)["ok"][0], "--set", "certify.sigma=0.5")
    assert "changes a field that the run's results depend on" in str(changed.exception or changed.output)
