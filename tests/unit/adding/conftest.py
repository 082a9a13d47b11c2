"""Runs a program of this folder in a process of its own and hands on what it tells."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def tell(
    tmp_path_factory: pytest.TempPathFactory, migrated: Path
) -> Iterator[Callable[[str], dict[str, Any]]]:
    ready = subprocess.Popen(
        [sys.executable, str(HERE / "ready.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert ready.stdin is not None and ready.stdout is not None

    def run(program: str) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp(program.split(".")[0])
        shutil.copy(migrated, folder / "mlflow.db")
        said, complained = folder / "said.json", folder / "complained.txt"
        request = [str(HERE / program), str(folder), str(said), str(complained)]
        print(json.dumps(request), file=ready.stdin, flush=True)
        code = ready.stdout.readline().strip()
        assert code == "0", complained.read_text()[-4000:]
        told: dict[str, Any] = json.loads(said.read_text())
        return told

    yield run
    with ready:
        ready.stdin.close()
