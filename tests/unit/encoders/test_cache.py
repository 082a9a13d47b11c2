"""Models and parts on URLs: the same encoder as from a directory, fetched once a machine, and checked whenever used."""

import shutil
import threading
import time
from importlib.resources import files
from pathlib import Path

import fsspec
import pytest
import torch

from smoothcert.defences import save_module
from smoothcert.defences.loading import load_defended
from smoothcert.defences.modules import LinearMapper
from smoothcert.encoders import cache, load_encoder
from smoothcert.encoders.cache import CACHE_VARIABLE, fetch_file, fetch_folder, is_url
from smoothcert.errors import EncoderError
from smoothcert.job import EncoderSection

BUNDLED = Path(str(files("smoothcert.encoders") / "bundled" / "digits-clip"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def fetched(monkeypatch):
    """Names of the files that were asked from a store, in order."""
    names = []
    real = cache._pieces

    def pieces(storage, name):
        names.append(name)
        yield from real(storage, name)

    monkeypatch.setattr(cache, "_pieces", pieces)
    return names


@pytest.fixture
def model(request):
    """The bundled model on a store that is no directory."""
    fs = fsspec.filesystem("memory")
    url = f"memory://models-{request.node.name}/digits"
    for path in BUNDLED.iterdir():
        fs.pipe_file(f"{url}/{path.name}", path.read_bytes())
    fs.pipe_file(f"{url}/README.md", b"not for loading")
    fs.pipe_file(f"{url}/pytorch_model.bin", b"never read")
    yield url
    fs.rm(url, recursive=True)


def everything(name):
    return True


def test_the_encoder_of_a_url_is_that_of_the_directory_and_is_fetched_once(model, fetched):
    here = load_encoder(EncoderSection(model=str(BUNDLED), device="cpu"))
    there = load_encoder(EncoderSection(model=model, device="cpu"))
    assert there.digest == here.digest and there.name == model
    assert sorted(fetched) == sorted(path.name for path in BUNDLED.iterdir() if path.name != "README.md")
    fetched.clear()
    assert load_encoder(EncoderSection(model=model, device="cpu")).digest == here.digest
    assert fetched == []


def test_what_is_damaged_here_or_new_there_is_fetched_again(model, fetched, caplog):
    folder = fetch_folder(model, everything, field="encoder.model")
    weights = folder / "model.safetensors"
    good = weights.read_bytes()
    count = len(fetched)
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))  # the size stays
    assert fetch_folder(model, everything, field="encoder.model") == folder
    assert weights.read_bytes() == good and len(fetched) == 2 * count
    assert "is damaged and is fetched again" in caplog.text
    weights.unlink()
    assert (fetch_folder(model, everything, field="encoder.model") / weights.name).read_bytes() == good
    time.sleep(0.01)  # another time of writing
    fsspec.filesystem("memory").pipe_file(f"{model}/config.json", b"{}")
    newer = fetch_folder(model, everything, field="encoder.model")
    assert newer != folder and (newer / "config.json").read_bytes() == b"{}"
    assert (folder / "model.safetensors").exists(), "who loads from the older one still finds it"


def test_those_who_come_together_fetch_once(model, fetched):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch_folder(model, everything, field="encoder.model")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1 and len(found) == 4
    assert len(fetched) == len(set(fetched)) == len(list(found[0].iterdir())) - 1


def test_a_killed_fetch_leaves_nothing_that_counts(model, fetched, own_cache, monkeypatch):
    real = cache._pieces

    def cut(storage, name):
        yield b"half"
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "_pieces", cut)
    with pytest.raises(KeyboardInterrupt):
        fetch_folder(model, everything, field="encoder.model")
    (next(own_cache.iterdir()) / "of-a-killed-one.part").mkdir()  # SIGKILL leaves it
    monkeypatch.setattr(cache, "_pieces", real)
    folder = fetch_folder(model, everything, field="encoder.model")
    assert not list(own_cache.rglob("*.part"))
    assert (folder / "model.safetensors").read_bytes() == (BUNDLED / "model.safetensors").read_bytes()


def test_a_file_that_changes_while_it_is_fetched_is_refused(model, monkeypatch):
    def other(storage, name):
        yield b"longer or shorter than it was listed"

    monkeypatch.setattr(cache, "_pieces", other)
    with pytest.raises(EncoderError, match="bytes when it was listed, and 36 when it was fetched"):
        fetch_folder(model, everything, field="encoder.model")


def test_nothing_at_the_url_names_field_and_remedy():
    with pytest.raises(
        EncoderError, match=r"(?s)encoder\.model='memory://nowhere/x' holds no model.*save_pretrained"
    ):
        load_encoder(EncoderSection(model="memory://nowhere/x", device="cpu"))
    with pytest.raises(EncoderError, match=r"mapper='memory://nowhere/m.safetensors' does not exist"):
        fetch_file("memory://nowhere/m.safetensors", field="mapper")


def test_a_cache_that_cannot_be_written_says_how_to_name_another(model, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(EncoderError, match="(?s)cannot be written.*SMOOTHCERT_CACHE"):
        fetch_folder(model, everything, field="encoder.model")


def test_a_mapper_on_a_url_is_the_mapper_of_the_file(tmp_path, request):
    encoder = load_encoder(EncoderSection(model=str(BUNDLED), device="cpu"))
    file = tmp_path / "m.safetensors"
    save_module(file, LinearMapper.kind, {"weight": torch.eye(encoder.feature_dim)})
    url = f"memory://parts-{request.node.name}/m.safetensors"
    fsspec.filesystem("memory").pipe_file(url, file.read_bytes())
    here, there = (
        load_defended(EncoderSection(model=str(BUNDLED), device="cpu", mapper=place))
        for place in (str(file), url)
    )
    assert here.digest == there.digest != encoder.digest
    fsspec.filesystem("memory").rm(url)


def test_a_file_url_is_the_directory_itself(tmp_path):
    shutil.copytree(BUNDLED, tmp_path / "model")
    assert fetch_folder(f"file://{tmp_path}/model", everything, field="encoder.model") == tmp_path / "model"


def test_what_is_a_url():
    assert is_url("s3://bucket/model") and is_url("memory://x") and is_url("file:///x")
    assert not any(map(is_url, ("openai/clip", "bundled:digits-clip", "/x/y", "module:make", "C:/x")))
