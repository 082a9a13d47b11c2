"""Runs a program of this folder in a process of its own and hands on what it tells."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def tell(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    def run(program: str) -> dict[str, Any]:
        made = subprocess.run(
            [sys.executable, str(HERE / program), str(tmp_path_factory.mktemp(program.split(".")[0]))],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert made.returncode == 0, made.stderr[-4000:]
        told: dict[str, Any] = json.loads(made.stdout)
        return told

    return run
