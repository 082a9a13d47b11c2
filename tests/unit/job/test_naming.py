"""Names of runs show noise, encoder and defence, in letters that any store takes."""

import re

import pytest

from smoothcert.job import parse_job
from smoothcert.job.naming import variant
from smoothcert.store import RunIdentity, run_name

JOB = """
name: photos
data: {format: parquet, uri: x}
encoder: {model: "bundled:digits-clip"}
certify: {sigma: 0.25}
"""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], "s0.25"),
        (["certify.sigma=0.5"], "s0.5"),
        (["encoder.model=openai/clip-vit-base-patch32"], "clip-vit-base-patch32-s0.25"),
        (["encoder.model=s3://bucket/models/My Model (v2)/"], "my-model-v2-s0.25"),
        (["encoder.model=towers.py:make_tower"], "make-tower-s0.25"),
        (
            ["encoder.purifier=defences/blur.safetensors", "encoder.mapper=/m/a_b.safetensors"],
            "s0.25-blur-a-b",
        ),
        (["encoder.model=" + "x" * 90], "x" * 24 + "-s0.25"),
    ],
)
def test_what_varies_is_in_the_name(changes: list[str], expected: str) -> None:
    job = parse_job(JOB, changes)
    assert variant(job) == expected
    name = run_name(RunIdentity(job, "d" * 64, "e" * 64, "0.2"))
    assert re.fullmatch(rf"photos-{re.escape(expected)}-[0-9a-f]{{8}}", name)


def test_two_runs_that_differ_in_something_else_have_two_names() -> None:
    first, second = (
        run_name(RunIdentity(parse_job(JOB, [f"certify.seed={seed}"]), "d" * 64, "e" * 64, "0.2"))
        for seed in (0, 1)
    )
    assert first != second
