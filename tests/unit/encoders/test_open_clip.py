"""Checkpoints in open_clip's layout, against the network written out with torch's attention under open_clip's names."""

import json
import runpy
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from smoothcert.encoders import load_encoder
from smoothcert.encoders.open_clip import in_transformers_layout
from smoothcert.errors import EncoderError
from smoothcert.job import EncoderSection

TINY = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
WIDTH, HEADS, DIM, SIZE, PATCH, LENGTH = 32, 2, 20, 24, 8, 12
WORDS = len(TINY["WORDS"]) + 3
CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": DIM,
        "vision_cfg": {
            "image_size": SIZE,
            "layers": 2,
            "width": WIDTH,
            "head_width": WIDTH // HEADS,
            "patch_size": PATCH,
        },
        "text_cfg": {
            "context_length": LENGTH,
            "vocab_size": WORDS,
            "width": WIDTH,
            "heads": HEADS,
            "layers": 2,
        },
    },
    "preprocess_cfg": {
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.3, 0.4],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}


class Block(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(WIDTH, 4 * WIDTH))
        self.mlp.add_module("act", activation)
        self.mlp.add_module("c_proj", nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Tower(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(activation) for _ in range(2))

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Visual(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(WIDTH))
        self.positional_embedding = nn.Parameter(torch.randn((SIZE // PATCH) ** 2 + 1, WIDTH))
        self.ln_pre, self.ln_post = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.transformer = Tower(activation)
        self.proj = nn.Parameter(torch.randn(WIDTH, DIM))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(pixels), 1, -1)
        x = self.ln_pre(torch.cat([first, patches], dim=1) + self.positional_embedding)
        return self.ln_post(self.transformer(x)[:, 0]) @ self.proj


class QuickGELU(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


class Clip(nn.Module):
    """The network as its paper has it, with the names of open_clip's checkpoints."""

    def __init__(self, *, quick: bool) -> None:
        super().__init__()
        torch.manual_seed(7)
        activation = QuickGELU() if quick else nn.GELU()
        self.visual = Visual(activation)
        self.transformer = Tower(activation)
        self.token_embedding = nn.Embedding(WORDS, WIDTH)
        self.positional_embedding = nn.Parameter(torch.randn(LENGTH, WIDTH))
        self.ln_final = nn.LayerNorm(WIDTH)
        self.text_projection = nn.Parameter(torch.randn(WIDTH, DIM))
        self.logit_scale = nn.Parameter(torch.tensor(2.6))

    def text(self, ids: torch.Tensor) -> torch.Tensor:
        mask = torch.full((LENGTH, LENGTH), float("-inf")).triu(1)
        x = self.transformer(self.token_embedding(ids) + self.positional_embedding, mask)
        x = self.ln_final(x)
        return x[torch.arange(len(ids)), ids.argmax(dim=1)] @ self.text_projection


def write(folder: Path, *, quick: bool = False, **changes: Any) -> Clip:
    """A checkpoint directory with a tokenizer; gives the network."""
    TINY["build_clip"](folder)
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        (folder / name).unlink()
    network = Clip(quick=quick).eval()
    save_file(dict(network.state_dict()), folder / "open_clip_model.safetensors")
    config = json.loads(json.dumps(CONFIG))
    config["model_cfg"] |= {"quick_gelu": True} if quick else {}
    for place, value in changes.items():
        section, _, key = place.rpartition("__")
        (config["model_cfg"][section] if section else config["model_cfg"])[key] = value
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return network


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SMOOTHCERT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "open_clip"


@pytest.mark.parametrize("quick", [False, True], ids=["gelu", "quick_gelu"])
def test_features_are_those_of_the_network(tmp_path: Path, quick: bool) -> None:
    network = write(tmp_path / "m", quick=quick)
    encoder = load_encoder(EncoderSection(model=str(tmp_path / "m"), device="cpu"))
    x = torch.rand((3, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(1))
    preparation = CONFIG["preprocess_cfg"]
    mean, std = (torch.tensor(preparation[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        expected = nn.functional.normalize(network.visual((x - mean) / std), dim=1)
        assert encoder.encode_images(x) == pytest.approx(expected, abs=1e-5)
        # words are tokens 2 and following, the end token is the last one; what follows it is not read
        ids = torch.zeros((2, LENGTH), dtype=torch.long)
        for row, text in enumerate((("a", "cat"), ("the", "red", "house"))):
            tokens = [2 + TINY["WORDS"].index(word) for word in text] + [WORDS - 1]
            ids[row, : len(tokens)] = torch.tensor(tokens)
        expected_texts = nn.functional.normalize(network.text(ids), dim=1)
        found = encoder.encode_texts(["a cat", "the red house"])
    assert torch.as_tensor(found).float() == pytest.approx(expected_texts, abs=1e-5)
    assert encoder.prepare(Image.new("RGB", (40, 30))).shape == (3, SIZE, SIZE)


def test_it_is_converted_once_and_a_copy_is_the_same_encoder(tmp_path: Path, cache: Path) -> None:
    write(tmp_path / "m")
    first = in_transformers_layout(tmp_path / "m", model="m")
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    shutil.copytree(tmp_path / "m", tmp_path / "copy")
    second = in_transformers_layout(tmp_path / "copy", model="copy")
    assert first == second and (first / "model.safetensors").stat().st_mtime_ns == stamp
    assert [entry.name for entry in cache.iterdir()] == [first.name], "nothing half done is left"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vision_cfg__timm_model_name": "vit_base"}, "timm_model_name"),
        ({"text_cfg__hf_model_name": "roberta"}, "hf_model_name"),
        ({"vision_cfg__layers": [3, 4, 6, 3]}, "layers"),
        ({"multimodal_cfg": {"heads": 8}}, "multimodal_cfg"),
    ],
)
def test_what_is_no_plain_clip_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    write(tmp_path / "m", **changes)
    with pytest.raises(EncoderError, match=rf"{said}, so this is not a plain CLIP(.|\n)*module:callable"):
        in_transformers_layout(tmp_path / "m", model="m")


def test_pickled_strange_and_damaged_weights_are_refused(tmp_path: Path, cache: Path) -> None:
    network = write(tmp_path / "m")
    weights = tmp_path / "m" / "open_clip_model.safetensors"
    save_file({**network.state_dict(), "visual.head.weight": torch.zeros(2)}, weights)
    with pytest.raises(EncoderError, match="'visual.head.weight', which a plain CLIP has not"):
        in_transformers_layout(tmp_path / "m", model="m")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(EncoderError, match="cannot be read"):
        in_transformers_layout(tmp_path / "m", model="m")
    weights.rename(weights.with_name("open_clip_pytorch_model.bin"))
    with pytest.raises(EncoderError, match="pickled files are not read"):
        in_transformers_layout(tmp_path / "m", model="m")
    assert not cache.exists() or not list(cache.iterdir())


def test_a_tensor_that_is_lacking_is_named_by_the_ordinary_check(tmp_path: Path) -> None:
    network = write(tmp_path / "m")
    state = {key: value for key, value in network.state_dict().items() if key != "visual.proj"}
    save_file(state, tmp_path / "m" / "open_clip_model.safetensors")
    with pytest.raises(EncoderError, match="visual_projection.weight"):
        load_encoder(EncoderSection(model=str(tmp_path / "m"), device="cpu"))


def test_a_hub_id_as_open_clip_writes_it_is_that_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``hf-hub:owner/name``: the hub is asked for ``owner/name``, and gives the files that were asked for alone."""
    write(tmp_path / "m")
    (tmp_path / "m" / "open_clip_pytorch_model.bin").write_bytes(b"a pickle")
    fetched = tmp_path / "fetched"

    def snapshot_download(repo: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        assert (repo, revision) == ("owner/name", "abc")
        fetched.mkdir()
        for file in (tmp_path / "m").iterdir():
            if any(fnmatch(file.name, pattern) for pattern in allow_patterns):
                shutil.copy(file, fetched)
        return str(fetched)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    hub = load_encoder(EncoderSection(model="hf-hub:owner/name", revision="abc", device="cpu"))
    assert not list(fetched.glob("*.bin"))
    folder = load_encoder(EncoderSection(model=str(tmp_path / "m"), device="cpu"))
    assert hub.digest == folder.digest and "owner/name" in hub.name
    x = torch.rand((3, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(1))
    assert torch.equal(hub.encode_images(x), folder.encode_images(x))
    texts = ["a cat", "the red house"]
    assert torch.equal(hub.encode_texts(texts), folder.encode_texts(texts))
