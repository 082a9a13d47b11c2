"""Any torch module as an encoder, made by the user's own code."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from smoothcert.encoders import ModuleEncoder, check_encoder, load_encoder
from smoothcert.errors import DecodeError, EncoderError
from smoothcert.job import EncoderSection

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)

CODE = """
import torch
from smoothcert.encoders import Encoder, ModuleEncoder


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.head = torch.nn.Linear(4 * 6 * 6, 5)
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, x):
        return self.head(self.drop(self.conv(x).flatten(1)))


def make(device, dtype):
    return ModuleEncoder(Net(), input_size=(8, 8), mean=(0.5,) * 3, std=(0.2,) * 3, device=device, dtype=dtype)


def plain():
    return ModuleEncoder(Net(), input_size=(8, 8))


def small():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 5), torch.nn.Tanh())
    return ModuleEncoder(net, input_size=(8, 8))


def bare():
    return Net()


def fail():
    raise ZeroDivisionError("of its own")


def needs_argument(path):
    return None


def lacks_a_package():
    import no_such_package


def mixing():
    class Mixing(Net):
        def forward(self, x):
            return super().forward(x - x.mean(0, keepdim=True))
    return ModuleEncoder(Mixing(), input_size=(8, 8))


number = 3
"""


def net(width: int = 6) -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(3 * width * width, 7), torch.nn.Dropout(0.5)
    )


@pytest.fixture
def code(tmp_path) -> Path:
    file = tmp_path / "my_models.py"
    file.write_text(CODE)
    return file


def load(where: str, **settings):
    return load_encoder(EncoderSection(model=where, **{"device": "cpu", **settings}))


# --- a module and its preprocessing --------------------------------------------------------------------------


def test_features_are_the_modules_behind_the_normalisation():
    encoder = ModuleEncoder(net(), input_size=(6, 6), mean=MEAN, std=STD)
    check_encoder(encoder)
    pixels = torch.rand(4, 3, 6, 6)
    normalised = (pixels.numpy() - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    layer = net()[1]
    raw = normalised.reshape(4, -1) @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode_images(pixels), expected, rtol=0, atol=1e-5)
    assert encoder.feature_dim == 7 and not encoder.has_texts
    with pytest.raises(EncoderError, match="has no text space"):
        encoder.encode_texts(["a"])


def test_gradients_reach_the_pixels_and_noise_outside_the_box_is_not_clamped():
    encoder = ModuleEncoder(net(), input_size=(6, 6))
    pixels = (torch.rand(2, 3, 6, 6) * 3 - 1).requires_grad_(True)
    encoder.encode_images(pixels)[:, 0].sum().backward()
    assert pixels.grad is not None and (pixels.grad != 0).any()
    inside = encoder.encode_images(pixels.detach().clamp(0, 1))
    assert (encoder.encode_images(pixels.detach()) - inside).norm(dim=1).min() > 1e-3


@pytest.mark.parametrize("size", [(6, 6), (6, 10), (10, 6)])
@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (17, 17), (6, 6), (3, 40)])
def test_crop_keeps_the_aspect_ratio_and_the_middle(size, shape):
    """A gradient from left to right and top to bottom keeps its slope and its middle."""
    height, width = shape
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    image = np.stack([columns * 200 / max(shape), rows * 200 / max(shape), 0 * rows], axis=-1)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * size[0] * size[1], 2))
    encoder = ModuleEncoder(module, input_size=size, resample="bilinear")
    x = encoder.prepare(Image.fromarray(image.round().astype(np.uint8)))
    assert x.shape == (3, *size) and x.dtype == np.uint8
    scale = max(size[0] / height, size[1] / width)
    for channel, (axis, edge) in enumerate(((1, width), (0, height))):
        profile = x[channel].astype(float).mean(axis=1 - axis)
        middle = (edge - 1) / 2 * 200 / max(shape)
        # a pixel of x is 1/scale pixels of the image; cutting and rounding move the middle by at most one of them
        assert abs(profile.mean() - middle) <= 200 / max(shape) / scale + 2
        inner = profile[1:-1]
        if len(inner) > 2:
            assert np.diff(inner).mean() == pytest.approx(200 / max(shape) / scale, rel=0.25, abs=0.7)


def test_stretch_uses_the_whole_image():
    encoder = ModuleEncoder(net(), input_size=(6, 6), resize="stretch")
    image = np.zeros((30, 60, 3), np.uint8)
    image[:, :10] = 255  # outside the middle square
    assert encoder.prepare(Image.fromarray(image))[:, :, 0].min() > 200
    cropping = ModuleEncoder(net(), input_size=(6, 6))
    assert cropping.prepare(Image.fromarray(image)).max() < 60


def test_grey_and_transparent_images_become_rgb_and_endless_ones_are_refused():
    encoder = ModuleEncoder(net(), input_size=(6, 6))
    for mode in ("L", "RGBA", "P", "1"):
        assert encoder.prepare(Image.new(mode, (9, 9))).shape == (3, 6, 6)
    with pytest.raises(DecodeError, match="too elongated"):
        encoder.prepare(Image.new("L", (1, 2_000_000)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_size": (6,)}, "input_size"),
        ({"input_size": (6, 0)}, "input_size"),
        ({"mean": (0.5,)}, "mean"),
        ({"std": (0.5, 0.5, 0.0)}, "std"),
        ({"std": (0.5, 0.5, float("nan"))}, "std"),
        ({"resize": "squash"}, "resize"),
        ({"resample": "nearest"}, "resample"),
    ],
)
def test_odd_settings_are_refused(settings, message):
    with pytest.raises(EncoderError, match=f"ModuleEncoder was given {message}") as caught:
        ModuleEncoder(net(), **({"input_size": (6, 6)} | settings))
    assert caught.value.remedy


class Pair(torch.nn.Module):
    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return pixels, pixels


@pytest.mark.parametrize(("module", "made"), [(torch.nn.Identity(), r"\(2, 3, 6, 6\)"), (Pair(), "tuple")])
def test_a_module_that_makes_no_features_is_refused(module, made):
    with pytest.raises(EncoderError, match=f"its module makes {made} of a batch of 2") as caught:
        ModuleEncoder(module, input_size=(6, 6))
    assert "(B, d)" in caught.value.remedy


def test_texts_are_encoded_and_checked():
    table = torch.nn.Embedding(256, 7)

    def encode(texts):
        return torch.stack([table(torch.tensor(list(text.encode()))).sum(0) for text in texts])

    encoder = ModuleEncoder(net(), input_size=(6, 6), encode_text=encode, text_modules=(table,))
    check_encoder(encoder)
    assert encoder.has_texts and encoder.encode_texts(["a", "b"]).shape == (2, 7)
    table.train()
    with pytest.raises(EncoderError, match="Embedding in training mode"):
        encoder.encode_texts(["a"])


def test_the_digest_follows_weights_settings_and_nothing_else():
    def digest(module, **settings):
        return ModuleEncoder(module, **({"input_size": (6, 6)} | settings)).digest

    base = digest(net())
    assert digest(net()) == base
    changed = net()
    with torch.no_grad():
        changed[1].bias[0] += 1e-3
    others = [
        digest(changed),
        digest(net(), mean=MEAN),
        digest(net(), std=STD),
        digest(net(), resize="stretch"),
        digest(net(), resample="bilinear"),
        digest(net(), dtype=torch.bfloat16),
        digest(torch.nn.Sequential(*net(), torch.nn.ReLU())),
        digest(torch.nn.Sequential(*net(), torch.nn.Softplus(beta=2))),
        digest(torch.nn.Sequential(*net(), torch.nn.Softplus(beta=3))),
    ]
    assert len({base, *others}) == 10


# --- code that a job names -----------------------------------------------------------------------------------


def test_a_file_of_the_users_makes_the_encoder(code):
    encoder = load(f"{code}:make")
    assert encoder.feature_dim == 5 and encoder.input_size == (8, 8)
    assert not any(module.training for module in encoder.modules)
    assert load(f"{code}:make", dtype="bfloat16").dtype == torch.bfloat16
    assert load(f"{code}:plain").encode_images(torch.rand(2, 3, 8, 8)).shape == (2, 5)


def test_an_installed_module_makes_the_encoder(code, monkeypatch):
    monkeypatch.syspath_prepend(code.parent)
    monkeypatch.delitem(sys.modules, "my_models", raising=False)
    encoder = load("my_models:make")
    # the same code and weights, wherever they are
    assert encoder.digest == load(f"{code}:make").digest
    monkeypatch.delitem(sys.modules, "my_models")


def docs_example(title: str) -> str:
    """The Python that follows a heading of docs/encoders.md."""
    page = (Path(__file__).parents[3] / "docs" / "encoders.md").read_text()
    return page.partition(title)[2].partition("```python\n")[2].partition("```")[0]


def test_the_example_for_timm_works_and_without_timm_it_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text(docs_example("## open_clip and timm"))
    section = EncoderSection(model=f"{tmp_path}/my_models.py:make", device="cpu")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(EncoderError, match=r"pip install 'smoothcert\[timm\]'"):
        load_encoder(section)

    def create_model(name: str, *, pretrained: bool, num_classes: int) -> torch.nn.Module:
        assert (pretrained, num_classes) == (True, 0)
        return torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(3 * 4 * 4, 6))

    answers = {"input_size": (3, 32, 32), "mean": MEAN, "std": STD, "interpolation": "bilinear"}
    data = SimpleNamespace(resolve_model_data_config=lambda network: answers)
    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model, data=data))
    encoder = load_encoder(section)
    check_encoder(encoder)
    assert encoder.input_size == (32, 32) and encoder.feature_dim == 6


def test_the_digest_follows_the_code(code, tmp_path):
    digest = load(f"{code}:make").digest
    copy = tmp_path / "elsewhere" / "my_models.py"
    copy.parent.mkdir()
    copy.write_text(CODE)
    assert load(f"{copy}:make").digest == digest
    for change in (
        ("(0.2,) * 3", "(0.3,) * 3"),
        ("manual_seed(0)", "manual_seed(1)"),
        ("self.drop(", "torch.relu("),
    ):
        copy.write_text(CODE.replace(*change))
        assert load(f"{copy}:make").digest != digest, change
    assert load(f"{code}:plain").digest != digest


def test_a_file_may_import_what_lies_beside_it(code, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "uses_it.py").write_text("from my_models import plain\n\ndef make():\n    return plain()\n")
    assert load(f"{tmp_path / 'uses_it.py'}:make").feature_dim == 5
    sys.modules.pop("my_models")


@pytest.mark.parametrize(
    ("attribute", "settings", "message", "remedy"),
    [
        ("nothing", {}, "made no encoder: AttributeError", "importable"),
        ("number", {}, "'number' is int, which cannot be called", "importable"),
        ("fail", {}, "made no encoder: ZeroDivisionError: of its own", "importable"),
        ("needs_argument", {}, "made no encoder: TypeError", "without arguments but device and dtype"),
        ("lacks_a_package", {}, "made no encoder: ModuleNotFoundError", "pip install no_such_package"),
        ("bare", {}, "returned Net, not an Encoder", "ModuleEncoder"),
        ("mixing", {}, "depends on the other images in its batch", "separately"),
        (
            "plain",
            {"dtype": "bfloat16"},
            "asks for bfloat16, but .* made an encoder on float32",
            "encoder.dtype: float32",
        ),
        ("make", {"feature": "pooled"}, "encoder.feature='pooled' says nothing", "remove it"),
    ],
)
def test_code_that_makes_no_sound_encoder_is_refused_with_a_remedy(
    code, attribute, settings, message, remedy
):
    with pytest.raises(EncoderError, match=message) as caught:
        load(f"{code}:{attribute}", **settings)
    assert remedy in caught.value.remedy


def test_code_that_is_not_there_is_refused(tmp_path):
    for where in (f"{tmp_path}/none.py:make", "no_such_module_anywhere:make"):
        with pytest.raises(EncoderError, match="made no encoder: (ImportError|ModuleNotFoundError)"):
            load(where)


@pytest.mark.slow
def test_a_compiled_module_gives_the_same_features(code, own_kernels):
    """With kernels, which a C++ compiler makes: few here. test_pretrained.py has those of a tower, on request."""
    pixels = torch.rand(6, 3, 8, 8)
    compiled = load(f"{code}:small", compile=True, slots=2, chunk=3)
    with torch.inference_mode():
        expected = load(f"{code}:small").encode_images(pixels)
        torch.testing.assert_close(compiled.encode_images(pixels), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("spoil", [lambda f: f * float("nan"), lambda f: f.flip(1), lambda f: f + 0.1])
def test_a_compiler_that_changes_the_features_is_refused(code, monkeypatch, spoil):
    """Kernels of another processor, from a shared cache, have done so."""
    monkeypatch.setattr(torch, "compile", lambda module, **_: lambda pixels: spoil(module(pixels)))
    with pytest.raises(EncoderError, match="the compiled tower makes other features") as caught:
        load(f"{code}:make", compile=True, slots=2, chunk=3)
    assert "TORCHINDUCTOR_CACHE_DIR" in caught.value.remedy
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)
    load(f"{code}:make", compile=True, slots=2, chunk=3)
