"""What counts as another version of the code."""

import shutil
import subprocess
import sys
from pathlib import Path

import smoothcert
from smoothcert.runtime.code_version import COUNTED

PACKAGE = Path(smoothcert.__file__).parent
NOT_COUNTED = {
    "api": "starts runs and reads them",
    "audit": "reads rows",
    "cli": "shows them",
    "job": "stands in the fingerprint by its content",
    "monitor": "compares runs over nights",
    "report": "shows rows",
    "runtime": "moves units",
    "sql": "reads rows",
    "storage": "moves bytes",
    "store": "keeps rows",
    "studies": "starts runs and compares them",
    "summary": "reads rows",
    "tracking": "shows them",
    "training": "makes files that a run knows by their content",
}


def test_every_room_is_either_counted_or_cannot_change_a_number() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms == {*COUNTED, *NOT_COUNTED} and not set(COUNTED) & set(NOT_COUNTED)


def version_with(tmp_path: Path, change: str = "") -> str:
    """What a copy of the package calls itself after a line was added to one of its files."""
    copy = tmp_path / (change.replace("/", "-") or "plain")
    shutil.copytree(PACKAGE, copy / "smoothcert", ignore=shutil.ignore_patterns("bundled", "__pycache__"))
    if change:
        with (copy / "smoothcert" / change).open("a") as stream:
            stream.write("# changed\n")
    code = "from smoothcert.runtime.code_version import code_version; print(code_version())"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=copy,
        env={"PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_a_change_of_a_defence_is_another_version_and_one_of_the_terminal_is_none(tmp_path: Path) -> None:
    plain = version_with(tmp_path)
    assert version_with(tmp_path, "defences/modules.py") != plain
    assert version_with(tmp_path, "work/certify/task.py") != plain
    assert version_with(tmp_path, "cli/progress.py") == plain
