"""Builders for what goes through an engine."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture(scope="session")
def make() -> Any:
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "builders.py")))
