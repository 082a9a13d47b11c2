from __future__ import annotations

import importlib.util
import os
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
def seeded():
    torch.manual_seed(0)


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
def own_kernels(tmp_path_factory, monkeypatch):
    """A cache of compiled kernels of this test run's own: the shared one may hold those for other instructions.

    Kernels without vector instructions: what the processor has of these would be found out by compiling for each.
    """
    own = tmp_path_factory.getbasetemp()
    # that of all processes of the run, so that the compiler's headers are made once
    folder = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder / "kernels"))
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "simdlen", 1)
    monkeypatch.setattr(config.cpp, "vec_isa_ok", True)
