"""Runs of the bundled encoder with every kind of certificate: the audit has nothing to object until a row is raised."""

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from smoothcert.audit import audit
from smoothcert.datasets import DIGIT_NAMES, load_digits_pairs
from smoothcert.encoders import Encoder, load_encoder
from smoothcert.job import EncoderSection, parse_job
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import Monitor
from smoothcert.sql import Query

PAIRS = 12


@pytest.fixture(scope="module")
def encoder() -> Iterator[Encoder]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_encoder(EncoderSection(model="bundled:digits-clip", device="cpu"))
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits of every class, each with a caption of its own, or with two."""
    images, captions = [], []
    for number, (image, caption, _) in enumerate(load_digits_pairs("test")[:PAIRS]):
        buffer = BytesIO()
        image.save(buffer, "PNG")
        images.append(buffer.getvalue())
        captions.append([caption, f"handwriting {number}"][: 1 + number % 2])
    path = tmp_path_factory.mktemp("data") / "digits.parquet"
    pq.write_table(pa.table({"image": images, "caption": captions}), path)
    return path


def job(data: Path, runs: Path, k: int, targets: list[dict[str, Any]], **more: Any) -> str:
    return json.dumps(
        {
            "name": "honest",
            "data": {"format": "parquet", "uri": str(data), "columns": {"label": None}},
            "encoder": {"model": "bundled:digits-clip", "device": "cpu", "threads": 1},
            "certify": {
                "sigma": 0.25,
                "alpha": 0.01,
                "pilot_draws": 31,
                "max_draws": 250,
                "radii": [0.0625, 0.25],
                "rivals": 2,
                "targets": targets,
            },
            "zero_shot": {"labels": list(DIGIT_NAMES), "prompts": ["a photo of the digit {label}"]},
            "retrieval": {"candidates": 8, "k": k},
            "executor": {"pairs_per_unit": 6},
            "output": {"runs": str(runs), "run": more.get("name", "r")},
            "tracking": {"enabled": False},
            **more,
        }
    )


@pytest.mark.parametrize(
    ("k", "targets"),
    [(1, []), (2, []), (2, [{"certificate": "class", "radius": 0.25}])],
    ids=["nearest", "first two", "first two, adaptive"],
)
def test_an_honest_run_is_sound(
    data: Path,
    tmp_path: Path,
    encoder: Encoder,
    monkeypatch: pytest.MonkeyPatch,
    k: int,
    targets: list[dict[str, Any]],
) -> None:
    driver = Driver(parse_job(job(data, tmp_path, k, targets)), encoder)
    driver.work("certification", Monitor(on_result=lambda result: None))
    result = audit.audit_run(driver.run)
    assert result.sound, result.lines()
    with Query([driver.run]) as query:
        (counts,) = query.sql(
            "SELECT count(*) AS pairs, count(certified_radius) AS classes, count(retrieval_radius) AS ranks, "
            "count(caption_bound[1]) AS captions, count(large_radius[1]) AS large, "
            "count(vote_radius) AS votes, count(retrieval_vote_radius) AS rank_votes, "
            "count(clean_percentile[1]) AS clean_medians, count(pilot_percentile_radius[1]) AS pilot_medians, "
            "count(caption_percentile[1]) AS caption_medians, count(class_percentile[1]) AS class_medians, "
            "count_if(certified_radius IS NOT NULL AND class_rival_alignment IS NULL) AS without FROM certificates"
        ).to_pylist()
    # none of the kinds was sound for want of certificates
    assert counts.pop("without") == 0 and min(counts.values()) > 0, counts
    assert counts["pairs"] == counts["captions"] == PAIRS
    raised = {
        # two bounds at a part of alpha lie below the cap, far below after few draws
        "certified_radius": lambda value: value * 1.5 + 0.05,
        "retrieval_radius": lambda value: value * 1.5 + 0.05,
        "caption_bound": lambda value: [each + 0.05 for each in value],
        "large_radius": lambda value: [None if each is None else each + 1e-4 for each in value],
        **{
            f"{name}_distribution": lambda value: [None if each is None else each + 1e-4 for each in value]
            # of the second rank there is nothing to raise, after so few draws
            for name in ("clean", "class", "caption", *(("retrieval",) if k == 1 else ()))
        },
        "vote_radius": lambda value: value + 0.05,
        "retrieval_vote_radius": lambda value: value + 0.05,
        **{
            name: lambda value: [None if each is None else each + 0.05 for each in value]
            for name in ("clean_percentile_radius", "pilot_percentile_radius")
        },
        **{
            # by 0.05, but to no more than a cosine can be
            name: lambda value: [None if each is None else min(each + 0.05, (1 + each) / 2) for each in value]
            for name in ("clean_percentile", "pilot_percentile", "caption_percentile", "class_percentile")
        },
    }
    for part in (tmp_path / "r" / "certificates").glob("*.parquet"):
        table = pq.read_table(part)
        for name, change in raised.items():
            values = [None if value is None else change(value) for value in table[name].to_pylist()]
            place, kind = table.schema.get_field_index(name), table.schema.field(name)
            table = table.set_column(place, kind, pa.array(values, kind.type))
        pq.write_table(table, part)
    monkeypatch.setattr(audit, "LISTED", 1000)
    found = audit.audit_run(driver.run)
    assert {finding.rule for finding in found.findings} == {"rounded-up"}, found.lines()
    named = {detail.split(" ")[0].partition("[")[0] for f in found.findings for _, detail in f.listed}
    assert named == raised.keys(), found.lines()


TARGETS = [
    {"certificate": "angular", "radius": 0.0625, "cosine": 0.5},
    {"certificate": "fcsb", "radius": 0.0625, "cosine": 0.25},
    {"certificate": "class", "radius": 0.03},
    {"certificate": "caption", "radius": 0.03, "cosine": -0.5},
    {"certificate": "retrieval", "radius": 0.03},
]
FEW = {"steps": 3, "eot_draws": 4, "evaluate_draws": 64}
SMOOTHED = FEW | {"subjects": "smoothed"}


def test_honest_attacks_of_any_norm_and_run_beat_nothing(
    data: Path, tmp_path: Path, encoder: Encoder
) -> None:
    """Targets of every kind, l-infinity attacks within certified radii, and attacks of one run on two certificates."""
    attacks = [
        {"attack": "pgd", "norm": "l2", "budgets": [0.03, 0.0625], "objective": "divergence", **FEW},
        # at most 0.053 in l2
        {"attack": "pgd", "norm": "linf", "budgets": [0.001], "objective": "divergence", **SMOOTHED},
        {"attack": "pgd", "norm": "l2", "budgets": [0.25], "objective": "classification"}
        | SMOOTHED
        | {"reference": "predicted"},
    ]
    first = Driver(parse_job(job(data, tmp_path, 2, TARGETS, name="first", attacks=attacks)), encoder)
    first.work("certification", Monitor(on_result=lambda result: None))
    first.work("attacks", Monitor(on_result=lambda result: None))
    second = Driver(parse_job(job(data, tmp_path, 2, [], name="second")), encoder)
    second.work("certification", Monitor(on_result=lambda result: None))
    results = audit.audit_runs([str(tmp_path / name) for name in ("first", "second")])
    assert all(result.sound for result in results), [result.lines() for result in results]
    assert [result.audited_pairs for result in results] == [PAIRS, PAIRS]
    with Query([first.run]) as query:
        (counts,) = query.sql(
            "SELECT "
            + ", ".join(
                f"count_if(target_decision[{j}] = 'certified') AS target_{j}"
                for j in range(1, len(TARGETS) + 1)
            )
            + " FROM certificates"
        ).to_pylist()
        linf = query.sql("SELECT max(perturbation_l2) AS l2 FROM attacks WHERE norm = 'linf'")["l2"][
            0
        ].as_py()
    assert min(counts.values()) > 0 and 0 < linf < 0.0625, (counts, linf)
