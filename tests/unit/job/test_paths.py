"""Paths in a job file lead from the job file, whatever the working directory is, or are refused before work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smoothcert.errors import JobError
from smoothcert.job import Job, load_job, parse_job

JOB = """
name: paths
data: {format: parquet, uri: data}
encoder: {model: "bundled:digits-clip"}
certify: {sigma: 0.25}
"""


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A job's folder; the working directory is another one."""
    folder = tmp_path / "project"
    for place in (folder / "models" / "clip", tmp_path / "cwd" / "models" / "other", folder / "nets"):
        place.mkdir(parents=True)
    (folder / "job.yaml").write_text(JOB)
    (folder / "blur.safetensors").write_bytes(b"")
    (folder / "mine.py").write_text("def make(): ...\n")
    (folder / "nets" / "deep.py").write_text("def make(): ...\n")
    monkeypatch.chdir(tmp_path / "cwd")
    return folder


def load(project: Path, *overrides: str) -> Job:
    return load_job(project / "job.yaml", overrides)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("models/clip", "{project}/models/clip"),
        ("./models/clip", "{project}/models/clip"),
        ("nets/../models/clip", "{project}/models/clip"),
        ("models/other", "{cwd}/models/other"),
        ("mine:make", "{project}/mine.py:make"),
        ("mine.py:make", "{project}/mine.py:make"),
        ("nets.deep:make", "{project}/nets/deep.py:make"),
        ("nets/deep.py:make", "{project}/nets/deep.py:make"),
        ("json:loads", "json:loads"),
        ("os.path:join", "os.path:join"),
        ("bundled:digits-clip", "bundled:digits-clip"),
        ("owner/name", "owner/name"),
        ("name", "name"),
        ("/absolute/model", "/absolute/model"),
        ("~/model", "~/model"),
        ("s3://bucket/model", "s3://bucket/model"),
    ],
)
def test_a_model_leads_from_the_job_file(project, written, read):
    expected = read.format(project=project, cwd=os.getcwd())
    assert load(project, f"encoder.model={written}").encoder.model == expected


def test_what_lies_beside_the_job_file_comes_before_the_working_directory(project):
    Path("models/clip").mkdir()
    assert load(project, "encoder.model=models/clip").encoder.model == str(project / "models" / "clip")


@pytest.mark.parametrize(
    "field", ["encoder.purifier", "encoder.mapper", "defences.soft.purifier", "defences.soft.mapper"]
)
def test_parts_of_defences_lead_from_the_job_file(project, field):
    section, name = field.rsplit(".", 1)

    def read(value: str) -> str:
        job = load(project, f"{field}={value}")
        return getattr(job.encoder if section == "encoder" else job.defences["soft"], name)

    assert read("blur.safetensors") == str(project / "blur.safetensors")
    assert read("s3://bucket/blur.safetensors") == "s3://bucket/blur.safetensors"
    assert read("/other/blur.safetensors") == "/other/blur.safetensors"
    assert read("mine:make") == f"{project / 'mine.py'}:make"
    assert read("json:loads") == "json:loads"


def test_surrogates_lead_from_the_job_file(project):
    attack = "{attack: pgd, norm: l2, budgets: [0.5], surrogates: [{model: models/clip, mapper: blur.safetensors}]}"
    [section] = load(project, f"attacks=[{attack}]").attacks
    [surrogate] = section.surrogates
    assert surrogate.model == str(project / "models" / "clip")
    assert surrogate.mapper == str(project / "blur.safetensors")


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("encoder.model=./models/none", "encoder.model"),
        ("encoder.model=models/deep/none", "encoder.model"),
        ("encoder.model=no_such_module_anywhere:make", "encoder.model"),
        ("encoder.model=none.py:make", "encoder.model"),
        ("encoder.purifier=none.safetensors", "encoder.purifier"),
        ("encoder.mapper=no_such_module_anywhere:make", "encoder.mapper"),
        ("defences.soft.mapper=none.safetensors", "defences.soft.mapper"),
        (
            "attacks=[{attack: pgd, norm: l2, budgets: [0.5], surrogates: [{model: ./none}]}]",
            r"attacks.0.surrogates.0.model",
        ),
    ],
)
def test_what_is_nowhere_is_refused_with_the_places_that_were_looked_in(project, override, field):
    with pytest.raises(JobError, match=f"^{field}='.*' does not exist; looked in ") as caught:
        load(project, override)
    assert str(project) in str(caught.value) and os.getcwd() in str(caught.value) and caught.value.remedy


def test_the_place_of_a_model_is_no_part_of_what_a_run_is_about(project, tmp_path):
    moved = tmp_path / "moved"
    os.rename(project, moved)
    here = load(
        moved, "encoder.model=models/clip", "encoder.purifier=blur.safetensors", "encoder.mapper=mine:make"
    )
    os.rename(moved, project)
    there = load(
        project, "encoder.model=models/clip", "encoder.purifier=blur.safetensors", "encoder.mapper=mine:make"
    )
    assert here.encoder != there.encoder and here.science() == there.science()
    for other in ("encoder.mapper=nets.deep:make", "encoder.model=owner/clip"):
        assert load(project, "encoder.mapper=mine:make", other).science() != there.science()


def test_a_job_without_a_file_keeps_its_paths():
    assert parse_job(JOB, ["encoder.model=models/clip"]).encoder.model == "models/clip"


def test_open_clips_way_to_write_hub_ids_is_taken(project):
    assert load(project, "encoder.model=hf-hub:chs20/fare2-clip").encoder.model == "hf-hub:chs20/fare2-clip"
    with pytest.raises(JobError, match="does not exist"):
        load(project, "encoder.model=hub:chs20/fare2-clip")
