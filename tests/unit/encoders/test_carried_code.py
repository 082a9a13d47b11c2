"""Code that a job names, carried: whole, by content, used in place of the path, and refused where it is too much."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from smoothcert.encoders import carried_code
from smoothcert.encoders.carried_code import carry_code, place_of, unpack_code
from smoothcert.encoders.factories import import_callable
from smoothcert.errors import EncoderError, JobError
from smoothcert.job import parse_job

JOB = """
name: carried
data: {{format: parquet, uri: "{here}"}}
encoder: {{model: "bundled:digits-clip", purifier: "{here}/nets.py:make"}}
certify: {{sigma: 0.25}}
defences: {{other: {{mapper: "{here}/more/nets.py:make"}}}}
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SMOOTHCERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(carried_code, "_COPIES", {})
    return tmp_path / "cache"


@pytest.fixture
def job_folder(tmp_path: Path) -> Path:
    here = tmp_path / "job"
    for name, content in {
        "nets.py": "from carried_package.part import VALUE\ndef make(encoder): return VALUE\n",
        "carried_package/__init__.py": "",
        "carried_package/part.py": "VALUE = 1\n",
        "more/nets.py": "def make(encoder): return 2\n",
        "data.parquet": "not code",
    }.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(content)
    return here


def test_the_copy_is_used_in_place_of_the_folder(job_folder: Path) -> None:
    carried = pickle.loads(pickle.dumps(carry_code(parse_job(JOB.format(here=job_folder)))))
    assert [[name for name, _ in each.files] for each in carried] == [
        ["carried_package/__init__.py", "carried_package/part.py", "nets.py"],
        ["nets.py"],
    ]
    unpack_code(carried)
    unpack_code(carried)  # by another worker of this machine
    # what is at the path now is not what the job was planned with
    (job_folder / "nets.py").write_text("def make(encoder): return 3\n")
    (job_folder / "carried_package" / "part.py").unlink()
    assert import_callable(f"{job_folder}/nets.py:make")(None) == 1
    assert import_callable(f"{job_folder}/more/nets.py:make")(None) == 2


def test_a_copy_that_was_changed_is_not_used(job_folder: Path) -> None:
    (carried, _) = carry_code(parse_job(JOB.format(here=job_folder)))
    carried.unpack()
    copy = place_of(job_folder / "nets.py")
    copy.write_text("def make(encoder): return 4\n")
    carried.unpack()
    assert place_of(job_folder / "nets.py").read_bytes() == dict(carried.files)["nets.py"]


def test_a_worker_that_cannot_write_says_where_it_could(
    job_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SMOOTHCERT_CACHE", str(tmp_path / "file"))
    with pytest.raises(EncoderError, match="cannot be written on this worker") as caught:
        unpack_code(carry_code(parse_job(JOB.format(here=job_folder))))
    assert "SMOOTHCERT_CACHE" in str(caught.value.remedy)


def test_a_folder_of_too_much_code_is_refused(job_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carried_code, "LARGEST", 50)
    with pytest.raises(JobError, match=r"job' holds \d+ bytes of Python files"):
        carry_code(parse_job(JOB.format(here=job_folder)))


def test_other_jobs_carry_nothing(job_folder: Path) -> None:
    text = (
        JOB.format(here=job_folder).split("encoder:")[0]
        + 'encoder: {model: "bundled:digits-clip"}\ncertify: {sigma: 0.25}\n'
    )
    assert carry_code(parse_job(text)) == ()
    assert place_of(job_folder / "nets.py") == job_folder / "nets.py"
