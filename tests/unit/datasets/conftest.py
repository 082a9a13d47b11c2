import importlib.util
import io
import sys
import uuid
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from smoothcert.datasets import open_source
from smoothcert.job import DataSection

# tests are no package: what several of them use is loaded by its path
_path = Path(__file__).with_name("tiff_by_hand.py")
_spec = importlib.util.spec_from_file_location("tiff_by_hand", _path)
sys.modules["tiff_by_hand"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["tiff_by_hand"])


def image_bytes(colour, size=(8, 6), format="PNG", **options):
    """A flat RGB image; the colour tells images apart."""
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, format, **options)
    return stream.getvalue()


@pytest.fixture
def picture():
    """``picture(i)``: the i-th of 256 distinct PNG files."""
    return lambda number: image_bytes((number % 256, 255 - number % 256, 7))


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    """A fresh folder URL, on this machine's disk and in fsspec's memory store."""
    if request.param == "local":
        yield str(tmp_path)
    else:
        url = f"memory://{uuid.uuid4().hex}"
        yield url
        fs, path = fsspec.core.url_to_fs(url)
        if fs.exists(path):
            fs.rm(path, recursive=True)


@pytest.fixture
def put():
    """``put(url, bytes)`` writes a file and makes its folders."""

    def write(url, content):
        fs, path = fsspec.core.url_to_fs(url)
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        fs.pipe_file(path, content)
        return url

    return write


@pytest.fixture
def source():
    """``source(format, uri, **data)`` opens a source."""
    return lambda format, uri, **data: open_source(DataSection(format=format, uri=uri, **data))


@pytest.fixture
def read_all():
    """All pairs of a source, by units of a given size, with the promised number in each."""

    def read(source, pairs_per_unit=7):
        pairs = []
        for unit in source.units(pairs_per_unit):
            got = list(source.read(unit))
            assert len(got) == len(unit) <= pairs_per_unit
            assert all(pair.source_uri == unit.source_uri for pair in got)
            assert all((pair.image is None) == (pair.error is not None) for pair in got)
            pairs += got
        assert len({pair.pair_id for pair in pairs}) == len(pairs)
        return pairs

    return read


@pytest.fixture
def noise():
    """Incompressible bytes."""
    return lambda count, seed=0: np.random.default_rng(seed).bytes(count)
