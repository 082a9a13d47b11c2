"""Names of run directories."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from smoothcert.job import parse_job
from smoothcert.store import RunDirectory

make = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "store" / "builders.py")))


@pytest.mark.parametrize("name", ["a", "run #1 [a]", "2026-11-01", "a.b", "50%", "what?", "..."])
def test_any_name_of_one_folder_is_taken(name: str) -> None:
    assert parse_job(make.JOB, [f"output.run={json.dumps(name)}"]).output.run == name


def test_a_run_that_is_there_is_read_whatever_its_job_says(tmp_path: Path) -> None:
    """Earlier versions took such names; nothing that was computed is lost for it."""
    RunDirectory.create_or_open(str(tmp_path / "run"), make.identity(), make.units(1))
    file = tmp_path / "run" / "run.json"
    stored = json.loads(file.read_text())
    stored["job"]["output"]["run"] = "/data/runs/a"
    file.write_text(json.dumps(stored))
    assert RunDirectory.open(str(tmp_path / "run")).info.job.output.run == "/data/runs/a"
