"""Builders for what goes through an engine."""

import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch


@pytest.fixture(scope="session")
def make() -> Any:
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "builders.py")))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
