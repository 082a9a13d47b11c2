"""Run directories on each kind of file system that needs no server, and builders for what goes into them."""

import itertools
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest

from smoothcert.store import RunDirectory, lease

_numbers = itertools.count()


@pytest.fixture(scope="session")
def make() -> Any:
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "store" / "builders.py")))


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A directory that does not exist yet."""
    if request.param == "local":
        yield str(tmp_path / "my runs" / "run #1 [a]")
        return
    name = f"memory://store-test-{next(_numbers)}/run"
    yield name
    fs = fsspec.filesystem("memory")
    if fs.exists(name):
        fs.rm(name, recursive=True)


@pytest.fixture
def quick_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that beat ten times a second."""
    monkeypatch.setattr(lease, "BEAT_S", 0.1)
    monkeypatch.setattr(lease, "SETTLE_S", 0.05)


@pytest.fixture
def open_run(url: str, make: Any) -> Callable[..., RunDirectory]:
    def open_it(units: int = 3, pairs: int = 4) -> RunDirectory:
        return RunDirectory.create_or_open(url, make.identity(), make.units(units, pairs))

    return open_it
