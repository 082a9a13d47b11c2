"""What an installed wheel has: the code, the bundled data, and the files that people copy from."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from smoothcert.shipped import FOLDERS, shipped_files

ROOT = Path(__file__).parents[2]
PROBE = """
import json, pathlib, smoothcert
from smoothcert.job import load_job, load_study
from smoothcert.shipped import shipped_files
place = shipped_files()
files = sorted((place / "jobs").glob("*.yaml"))
names = [(load_study if "\\nstudy:" in file.read_text() else load_job)(file).name for file in files]
print(json.dumps([str(pathlib.Path(smoothcert.__file__).parent), str(place), names]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout, built from a copy, so that nothing is left in the checkout."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed, and a test fetches nothing")
    source = tmp_path_factory.mktemp("source") / "copy"
    keep = (
        "pipeline",
        "jobs",
        "schemas",
        "recipes",
        "pyproject.toml",
        "setup.py",
        "MANIFEST.in",
        "README.md",
        "LICENSE",
    )
    source.mkdir()
    for name in keep:
        here = ROOT / name
        if here.is_dir():
            shutil.copytree(here, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(here, source / name)
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*command, "-w", str(out), str(source)], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.glob("*.whl")
    return made


def test_the_wheel_has_every_file_of_the_folders_unchanged(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for folder in FOLDERS:
            files = [file for file in (ROOT / folder).iterdir() if file.is_file()]
            assert files
            for file in files:
                assert archive.read(f"smoothcert/share/{folder}/{file.name}") == file.read_bytes()
        for needed in (
            "py.typed",
            "datasets/bundled/digits.npz",
            "encoders/bundled/digits-clip/model.safetensors",
            "defences/bundled/digits-psm/mapper.safetensors",
            "report/bundled/page.html",
            "report/bundled/plotly-basic.min.js",
        ):
            assert f"smoothcert/{needed}" in names
        assert not [name for name in names if name.startswith(("jobs/", "tests/", "setup"))]
        modules = {f"smoothcert/{path.relative_to(ROOT / 'pipeline/smoothcert')}" for path in
                   (ROOT / "pipeline/smoothcert").rglob("*.py")}  # fmt: skip
        assert modules <= names, "a room is missing"


def test_an_installed_package_finds_them_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=120, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    package, place, names = json.loads(done.stdout)
    assert Path(package) == site / "smoothcert" and Path(place) == site / "smoothcert" / "share"
    assert {"digits", "clip-vit-b32"} <= set(names)
    # a job finds its schema beside it, as in the checkout
    first = (Path(place) / "jobs" / "digits.yaml").read_text().splitlines()[0]
    assert (Path(place) / "jobs" / first.partition("$schema=")[2].strip()).is_file()


def test_a_checkout_has_them_where_they_are() -> None:
    assert shipped_files() == ROOT
