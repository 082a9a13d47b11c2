"""Purifier, encoder and mapper as one encoder: its numbers, its gradients, its identity, its bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from smoothcert.attacks import SmoothedSubject
from smoothcert.attacks.noise import NoiseKey, draw_chunks
from smoothcert.defences import (
    ConvolutionalPurifier,
    DefendedEncoder,
    LinearMapper,
    defend,
    save_module,
)
from smoothcert.encoders import Encoder, KnownEncoder
from smoothcert.errors import EncoderError
from smoothcert.job.encoder import DefenceSection

SIDE, DIM = 4, 3


class Halving(torch.nn.Module):
    """A purifier that is not ours."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels / 2


def halving(encoder: Encoder) -> torch.nn.Module:
    """Named by a job as module:callable."""
    return Halving()


def widening(encoder: Encoder) -> torch.nn.Module:
    return torch.nn.Linear(encoder.feature_dim, encoder.feature_dim + 1)


def shrinking(encoder: Encoder) -> torch.nn.Module:
    return torch.nn.AvgPool2d(2)


class Timed(Halving):
    """It wants a timestep too, as diffusion models do."""

    def forward(self, pixels: torch.Tensor, timestep: int) -> torch.Tensor:  # type: ignore[override]
        return pixels / timestep


class Boxed(Halving):
    """It returns a tuple, as diffusion models do."""

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor]:  # type: ignore[override]
        return (pixels / 2,)


def timed(encoder: Encoder) -> torch.nn.Module:
    return Timed()


def tupled(encoder: Encoder) -> torch.nn.Module:
    return Boxed()


def no_module(encoder: Encoder) -> object:
    return "module"


class Mixing(torch.nn.Module):
    """Breaks the contract: an image sees its neighbours in the batch."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels - pixels.mean(dim=0, keepdim=True)


def mixing(encoder: Encoder) -> torch.nn.Module:
    return Mixing()


@pytest.fixture
def base() -> KnownEncoder:
    torch.set_num_threads(1)
    return KnownEncoder.rotating(2.0, input_size=(SIDE, SIDE), feature_dim=DIM)


@pytest.fixture
def blur(tmp_path: Path) -> Path:
    """A 3x3 box filter of each channel, as x + c(x)."""
    kernel = torch.zeros(3, 3, 3, 3)
    for channel in range(3):
        kernel[channel, channel] = 1 / 9
        kernel[channel, channel, 1, 1] -= 1
    path = tmp_path / "blur.safetensors"
    save_module(path, ConvolutionalPurifier.kind, {"layers.0.weight": kernel})
    return path


@pytest.fixture
def turn(tmp_path: Path) -> Path:
    weight = torch.tensor([[0.0, -1.0, 0.2], [1.0, 0.0, 0.0], [0.0, 0.3, 1.0]])
    path = tmp_path / "turn.safetensors"
    save_module(path, LinearMapper.kind, {"weight": weight, "bias": torch.tensor([0.0, 0.1, 0.0])})
    return path


def pixels(count: int = 5) -> torch.Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def boxed(images: np.ndarray) -> np.ndarray:
    """The box filter by definition, borders repeated."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    windows = [padded[:, :, i : i + SIDE, j : j + SIDE] for i in range(3) for j in range(3)]
    return np.asarray(sum(windows) / 9)


def test_features_are_those_of_the_parts_one_after_the_other(base: Encoder, blur: Path, turn: Path) -> None:
    defended = defend(base, DefenceSection(purifier=str(blur), mapper=str(turn)), "both")
    inner = base.encode_images(torch.from_numpy(boxed(pixels().numpy()))).numpy()
    tensors = safetensors.torch.load_file(turn)
    wanted = inner @ tensors["weight"].numpy().T + tensors["bias"].numpy()
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(defended.encode_images(pixels()), wanted, atol=1e-6)
    torch.testing.assert_close(defended.encode_texts(["a", "b"]), base.encode_texts(["a", "b"]))
    assert (defended.input_size, defended.feature_dim) == (base.input_size, base.feature_dim)


def test_smoothed_gradients_run_through_all_three_parts(base: Encoder, blur: Path, turn: Path) -> None:
    """Against finite differences of the mean over the same draws, computed without gradients."""
    defended = defend(base, DefenceSection(purifier=str(blur), mapper=str(turn)), "both")
    subject = SmoothedSubject(defended, 0.25, eot_draws=64, name="both")
    image, keys = pixels(1), [NoiseKey(0, "p", "attack")]
    goal = torch.tensor([0.2, -0.5, 0.7])
    _, gradient = subject.gradient(image, lambda features, rows: features @ goal, keys)
    noise = torch.cat(list(draw_chunks(keys[0], (3, SIDE, SIDE), 64, 64, image.device))) * 0.25

    def value(at: torch.Tensor) -> float:
        with torch.no_grad():
            return float(defended.encode_images(at + noise).double().mean(dim=0) @ goal.double())

    generator = torch.Generator().manual_seed(1)
    for way in (gradient, *(torch.randn(image.shape, generator=generator) for _ in range(3))):
        way = way / way.norm()
        slope = (value(image + 0.02 * way) - value(image - 0.02 * way)) / 0.04
        assert float((gradient * way).sum()) == pytest.approx(slope, abs=5e-5)
    assert gradient.norm() > 0.02


def test_the_digest_follows_the_weights_and_not_the_place(
    base: Encoder, blur: Path, turn: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(blur.read_bytes())
    other = tmp_path / "other.safetensors"
    tensors = safetensors.torch.load_file(blur)
    tensors["layers.0.weight"][0, 0, 0, 0] += 1e-3
    save_module(other, ConvolutionalPurifier.kind, tensors)
    digests = [
        defend(base, section, "name").digest
        for section in (
            DefenceSection(purifier=str(blur)),
            DefenceSection(purifier=str(copy)),
            DefenceSection(purifier=str(other)),
            DefenceSection(mapper=str(turn)),
            DefenceSection(purifier=str(blur), mapper=str(turn)),
            DefenceSection(purifier=f"{__name__}:halving"),
        )
    ]
    assert digests[0] == digests[1] and len({base.digest, *digests}) == 6


def test_a_module_may_come_from_a_factory_that_the_job_names(base: Encoder) -> None:
    defended = defend(base, DefenceSection(purifier=f"{__name__}:halving"), "half")
    torch.testing.assert_close(
        defended.encode_images(pixels()), base.encode_images(pixels() / 2), rtol=0, atol=1e-6
    )


def test_a_defence_in_training_mode_is_refused(base: Encoder) -> None:
    module = Halving()
    defended = DefendedEncoder(base, purifier=module, mapper=None, name="half", parts_digest="0")
    module.train()
    with pytest.raises(EncoderError, match="training mode"):
        defended.encode_images(pixels())


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"purifier": "nowhere.safetensors"}, "purifier='nowhere.safetensors' cannot be loaded"),
        ({"purifier": "{turn}"}, "it holds a mapper; a purifier"),
        ({"mapper": "{blur}"}, "it holds a purifier; a mapper (residual_mapper or linear_mapper) is needed"),
        ({"mapper": "{plain}"}, "smoothcert=None"),
        ({"mapper": "{large}"}, "defence 'bad': its mapper fails on a tensor of (1, 3): RuntimeError"),
        ({"mapper": "{broken}"}, "cannot be loaded"),
        ({"mapper": "{name}:widening"}, "of the shape of its input"),
        ({"purifier": "{name}:shrinking"}, "its purifier makes (1, 3, 2, 2) of a tensor of (1, 3, 4, 4)"),
        ({"purifier": "{name}:timed"}, "its purifier fails on a tensor of (1, 3, 4, 4): TypeError"),
        ({"purifier": "{name}:tupled"}, "its purifier makes a tuple of a tensor of (1, 3, 4, 4)"),
        ({"mapper": "{name}:no_module"}, "returned str, not a torch.nn.Module"),
        ({"mapper": "{name}:nothing"}, "has no attribute 'nothing'"),
        ({"purifier": "no_such_module_at_all:f"}, "No module named"),
        ({"purifier": "{name}:mixing"}, "depends on the other images"),
    ],
)
def test_what_cannot_be_a_defence_is_named(
    base: Encoder, blur: Path, turn: Path, tmp_path: Path, section: dict[str, str], said: str
) -> None:
    places = {name: tmp_path / f"{name}.safetensors" for name in ("plain", "large", "broken")}
    safetensors.torch.save_file({"weight": torch.eye(DIM)}, places["plain"])
    save_module(places["large"], LinearMapper.kind, {"weight": torch.eye(DIM + 1)})
    places["broken"].write_bytes(b"not safetensors")
    filled = {
        key: text.format(turn=turn, blur=blur, name=__name__, **places) for key, text in section.items()
    }
    with pytest.raises(EncoderError) as caught:
        defend(base, DefenceSection(**filled), "bad")
    assert said in str(caught.value)


def test_tensors_that_do_not_fit_are_refused_when_they_are_written(tmp_path: Path) -> None:
    for kind, tensors, said in (
        (ConvolutionalPurifier.kind, {"layers.0.weight": torch.zeros(3, 3, 2, 2)}, "odd k"),
        (ConvolutionalPurifier.kind, {"layers.0.weight": torch.zeros(4, 3, 3, 3)}, "end with 4 channels"),
        (ConvolutionalPurifier.kind, {}, "0 layers"),
        (LinearMapper.kind, {"weight": torch.zeros(2, 3)}, r"expected \(d, d\)"),
        ("blur", {}, "kind 'blur' is unknown"),
    ):
        with pytest.raises(ValueError, match=said):
            save_module(tmp_path / "x.safetensors", kind, tensors)
    assert not list(tmp_path.iterdir())


class Rounding(torch.nn.Module):
    """A purifier whose gradient is zero everywhere."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.round(8 * pixels) / 8


def rounding(encoder: Encoder) -> torch.nn.Module:
    return Rounding()


def test_straight_through_has_the_same_features_and_the_bases_gradient_at_what_is_purified(
    base: KnownEncoder,
) -> None:
    defended = defend(base, DefenceSection(purifier=f"{__name__}:rounding"), "rounded")
    through = defended.straight_through()
    pixels = torch.rand((2, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(3))
    ahead = torch.tensor([0.3, -1.0, 0.7])

    def gradient(encoder: Encoder, images: torch.Tensor) -> torch.Tensor:
        points = images.clone().requires_grad_(True)
        return torch.autograd.grad((encoder.encode_images(points) @ ahead).sum(), points)[0]

    assert torch.allclose(through.encode_images(pixels), defended.encode_images(pixels), atol=1e-6)
    assert not gradient(defended, pixels).any()
    wanted = gradient(base, torch.round(8 * pixels) / 8)
    assert wanted.any() and torch.allclose(gradient(through, pixels), wanted, atol=1e-5)
    assert through.digest == defended.digest
