"""What is wrong with an encoder is said before any work: field, value, remedy; and nothing else is said."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import RevisionNotFoundError
from safetensors.torch import load_file, save_file

from smoothcert.encoders import (
    PretrainedEncoder,
    bundled_models,
    load_encoder,
    model_types,
    register_encoder,
    registry,
)
from smoothcert.errors import EncoderError
from smoothcert.job import EncoderSection


@pytest.fixture
def copy(clip_directory, tmp_path):
    return Path(shutil.copytree(clip_directory, tmp_path / "copy"))


def load(model, **settings):
    return load_encoder(EncoderSection(model=str(model), **{"device": "cpu", **settings}))


def edit(path: Path, **changes) -> None:
    content = json.loads(path.read_text())
    for key, value in changes.items():
        content = {k: v for k, v in content.items() if k != key} if value is None else {**content, key: value}
    path.write_text(json.dumps(content))


def without_weights(copy: Path) -> None:
    (copy / "model.safetensors").unlink()


def with_pickled_weights_only(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")


def with_a_missing_shard(copy: Path) -> None:
    without_weights(copy)
    index = {"weight_map": {"logit_scale": "model-00001-of-00002.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))


def with_cut_weights(copy: Path) -> None:
    whole = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def with_incomplete_weights(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})


def without_tokenizer(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()


def without_processor(copy: Path) -> None:
    (copy / "preprocessor_config.json").unlink()


def without_config(copy: Path) -> None:
    (copy / "config.json").unlink()


def with_broken_config(copy: Path) -> None:
    (copy / "config.json").write_text("{")


def without_model_type(copy: Path) -> None:
    edit(copy / "config.json", model_type=None)


def with_misspelt_model_type(copy: Path) -> None:
    edit(copy / "config.json", model_type="sigclip")


def with_other_input_size(copy: Path) -> None:
    size = {"height": 16, "width": 16}
    edit(copy / "preprocessor_config.json", size={"shortest_edge": 16}, crop_size=size)


def with_adapter(copy: Path) -> None:
    (copy / "adapter_config.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_weights, "no weights in safetensors: none"),
        (with_pickled_weights_only, r"only pickled ones \(pytorch_model.bin\)"),
        (with_a_missing_shard, "is missing weight files: model-00001-of-00002.safetensors"),
        (with_cut_weights, "its model cannot be loaded"),
        (with_incomplete_weights, r"lack 1 of the model's tensors, e.g. visual_projection.weight"),
        (without_tokenizer, "no tokenizer, which encoder.feature='projection' needs"),
        (without_processor, "its image processor cannot be loaded"),
        (without_config, "no config.json"),
        (with_broken_config, "config.json cannot be read"),
        (without_model_type, "has no model_type"),
        (with_misspelt_model_type, r"did you mean 'siglip'\?\); known: blip, blip-2, clip"),
        (with_other_input_size, r"makes \(16, 16\) images, but the vision tower reads \(24, 24\)"),
        (with_adapter, "holds an adapter"),
    ],
)
def test_a_damaged_directory_is_refused_with_a_remedy(copy, damage, message):
    damage(copy)
    with pytest.raises(EncoderError, match=message) as caught:
        load(copy)
    assert f"encoder.model='{copy}'" in str(caught.value) and caught.value.remedy


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "/no/such/model"}, "'/no/such/model' does not exist"),
        ({"model": "./models/clip"}, "does not exist"),
        ({"model": "bundled:digit-clip"}, r"did you mean 'bundled:digits-clip'\?"),
        ({"model": __file__}, "is a file"),
        ({"model": "bundled:digits-clip", "device": "gpu"}, "encoder.device='gpu' is not a device"),
        ({"model": "bundled:digits-clip", "device": "cuda:x"}, "is not a device"),
        ({"model": "bundled:digits-clip", "device": "cuda:99"}, r"torch sees \d+ CUDA devices"),
    ],
)
def test_a_wrong_setting_is_refused_with_a_remedy(settings, message):
    with pytest.raises(EncoderError, match=message) as caught:
        load(**settings)
    assert caught.value.remedy


def test_an_unreachable_hub_is_said_so(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncoderError, match="hub could not be reached") as caught:
        load("someone/some-model")
    assert "hf download someone/some-model" in caught.value.remedy


def test_a_hub_model_is_fetched_without_pickles_and_code_and_loaded(monkeypatch, clip_directory):
    asked = {}

    def snapshot_download(repo, *, revision, allow_patterns):
        asked.update(repo=repo, revision=revision, patterns=allow_patterns)
        return str(clip_directory)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    encoder = load("someone/some-model", revision="abc")
    assert (asked["repo"], asked["revision"]) == ("someone/some-model", "abc")
    assert not [pattern for pattern in asked["patterns"] if pattern.endswith((".py", ".bin"))]
    assert encoder.name == "someone/some-model@abc"
    assert encoder.digest == load(clip_directory).digest


def test_an_unknown_revision_names_the_field(monkeypatch):
    def snapshot_download(repo, **_):
        raise RevisionNotFoundError.__new__(RevisionNotFoundError)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(EncoderError, match="encoder.revision='abc' does not exist"):
        load("someone/some-model", revision="abc")


def test_pooled_features_need_no_tokenizer(copy):
    without_tokenizer(copy)
    assert load(copy, feature="pooled").feature_dim == 32


def test_loading_says_nothing_and_restores_logging(clip_directory, capfd, caplog):
    level = logging.getLogger("transformers").level
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(clip_directory)
    out, err = capfd.readouterr()
    assert (out, err, caplog.text) == ("", "", "")
    assert logging.getLogger("transformers").level == level


def test_threads_are_set():
    load("bundled:digits-clip", threads=2)
    assert torch.get_num_threads() == 2


def test_the_digest_follows_content_not_place(copy, clip_directory):
    digest = load(clip_directory).digest
    assert len(digest) == 64 and load(copy).digest == digest
    assert load(copy, feature="pooled").digest != digest
    assert load(copy, dtype="bfloat16").digest != digest
    (copy / "README.md").write_text("says nothing about features")
    assert load(copy).digest == digest


@pytest.mark.parametrize("name", ["weights", "processor", "tokenizer", "config"])
def test_the_digest_changes_with_whatever_changes_features(copy, clip_directory, name):
    if name == "weights":
        tensors = load_file(copy / "model.safetensors")
        tensors["logit_scale"] += 1
        save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    elif name == "processor":
        edit(copy / "preprocessor_config.json", image_mean=[0.4, 0.5, 0.6])
    elif name == "tokenizer":
        edit(copy / "tokenizer_config.json", model_max_length=5)
    else:
        edit(copy / "config.json", projection_dim=20, added="anything")
    assert load(copy).digest != load(clip_directory).digest


def test_sharded_weights_load_and_every_shard_enters_the_digest(clip_directory, copy):
    tensors = load_file(copy / "model.safetensors")
    without_weights(copy)
    names = sorted(tensors)
    shards = {
        "model-00001-of-00002.safetensors": names[::2],
        "model-00002-of-00002.safetensors": names[1::2],
    }
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, copy / shard, metadata={"format": "pt"})
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    whole, sharded = load(clip_directory), load(copy)
    pixels = torch.rand(2, 3, 24, 24)
    # products of float32 may be summed in another order where weights lie elsewhere in memory
    torch.testing.assert_close(sharded.encode_images(pixels), whole.encode_images(pixels), rtol=0, atol=1e-5)
    tensors[names[1]] = tensors[names[1]] + 1
    save_file(
        {name: tensors[name] for name in names[1::2]},
        copy / "model-00002-of-00002.safetensors",
        metadata={"format": "pt"},
    )
    assert load(copy).digest != sharded.digest


def test_a_tokenizer_of_another_model_is_noticed(copy):
    content = json.loads((copy / "tokenizer.json").read_text())
    content["model"]["vocab"]["cat"] = 99
    (copy / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(EncoderError, match="makes token 99, but the text tower knows only 15"):
        load(copy).encode_texts(["a cat"])


def test_code_in_a_repository_does_not_run_unasked(copy, monkeypatch, tmp_path):
    marker = tmp_path / "ran"
    (copy / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    edit(copy / "config.json", auto_map={"AutoModel": "evil.Model", "AutoConfig": "evil.Config"})
    edit(copy / "preprocessor_config.json", auto_map={"AutoImageProcessor": "evil.Processor"})
    load(copy)  # transformers' own class is used
    assert not marker.exists()


def test_a_family_can_be_registered(copy, monkeypatch):
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    model_types()

    @register_encoder("clip")
    class OtherEncoder(PretrainedEncoder):
        """Reads CLIP differently."""

    assert type(load(copy)) is OtherEncoder


def test_bundled_models_are_listed():
    assert bundled_models() == ["bundled:digits-clip", "bundled:shapes-llava"]
