from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

_path = Path(__file__).with_name("tiny_models.py")
_spec = importlib.util.spec_from_file_location("tiny_models", _path)
tiny_models = importlib.util.module_from_spec(_spec)
sys.modules["tiny_models"] = tiny_models
_spec.loader.exec_module(tiny_models)


@pytest.fixture(autouse=True)
def _one_thread_seeded():
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def clip_directory(tmp_path_factory):
    return tiny_models.build_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="session")
def siglip_directory(tmp_path_factory):
    return tiny_models.build_siglip(tmp_path_factory.mktemp("models") / "siglip")


@pytest.fixture(scope="session")
def sentencepiece_siglip(tmp_path_factory):
    return tiny_models.build_sentencepiece_siglip(tmp_path_factory.mktemp("models") / "siglip")


@pytest.fixture
def own_kernels(tmp_path, monkeypatch):
    """A cache of compiled kernels of this test's own: the shared one may hold those for other instructions."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
