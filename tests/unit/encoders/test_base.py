"""The contract's checks: each broken promise must be refused, not certified."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from smoothcert.encoders import Encoder, check_encoder
from smoothcert.encoders.base import unit_rows
from smoothcert.errors import EncoderError


class LinearEncoder(Encoder):
    """A network of one layer, with a place to break the contract."""

    def __init__(self, after: torch.nn.Module | None = None, feature_dim: int = 5) -> None:
        torch.manual_seed(0)
        self.network = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(48, 5), after or torch.nn.Identity()
        )
        super().__init__(
            name="linear", digest="0", feature_dim=feature_dim, input_size=(4, 4), modules=(self.network,)
        )

    def prepare(self, image: Image.Image) -> np.ndarray:
        raise NotImplementedError

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.network(pixels)

    def _text_features(self, texts: Sequence[str]) -> torch.Tensor:
        lengths = torch.tensor([[float(len(text))] for text in texts])
        return torch.cat([torch.ones(len(texts), self.feature_dim - 1), lengths], 1).requires_grad_(True)


class BatchCentred(torch.nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features - features.mean(0)


class AlwaysDropout(torch.nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(features, 0.5, training=True)


class SquareRootOfNegative(torch.nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.sqrt(features - 100)


def test_features_are_unit_float32_and_match_the_network():
    encoder = LinearEncoder()
    pixels = torch.rand(6, 3, 4, 4)
    raw = pixels.flatten(1).numpy() @ encoder.network[1].weight.numpy().T + encoder.network[1].bias.numpy()
    features = encoder.encode_images(pixels)
    assert features.dtype == torch.float32
    np.testing.assert_allclose(features, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-6)


def test_training_mode_of_any_module_is_refused_on_the_next_call():
    encoder = LinearEncoder(torch.nn.Dropout(0.1))
    encoder.encode_images(torch.rand(1, 3, 4, 4))
    encoder.network[2].train()
    with pytest.raises(EncoderError, match="Dropout in training mode"):
        encoder.encode_images(torch.rand(1, 3, 4, 4))
    with pytest.raises(EncoderError, match="Dropout in training mode"):
        encoder.encode_texts(["a"])


def test_construction_switches_modules_to_evaluation_and_freezes_them():
    encoder = LinearEncoder(torch.nn.Dropout(0.9))
    assert not any(module.training for module in encoder.network.modules())
    assert not any(parameter.requires_grad for parameter in encoder.network.parameters())


def test_gradient_with_respect_to_pixels_matches_a_difference_quotient():
    encoder = LinearEncoder()
    pixels = torch.rand(2, 3, 4, 4, requires_grad=True)
    step = torch.randn_like(pixels) * 1e-2
    weights = torch.randn(2, 5)

    def value(at: torch.Tensor) -> torch.Tensor:
        return (encoder.encode_images(at) * weights).sum()

    value(pixels).backward()
    with torch.no_grad():
        quotient = (value(pixels + step) - value(pixels - step)) / 2
    assert torch.isclose((pixels.grad * step).sum(), quotient, rtol=2e-2, atol=1e-5)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.rand(3, 4, 4), "shape"),
        (torch.rand(1, 1, 4, 4), "shape"),
        (torch.rand(1, 3, 4, 5), "shape"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "divide what prepare"),
    ],
)
def test_wrong_pixels_are_refused(pixels, message):
    with pytest.raises(EncoderError, match=message):
        LinearEncoder().encode_images(pixels)


def test_texts_come_back_without_gradient_and_a_lone_string_is_refused():
    encoder = LinearEncoder()
    assert not encoder.encode_texts(["a", "b"]).requires_grad
    assert encoder.encode_texts([]).shape == (0, 5)
    with pytest.raises(EncoderError, match="list of strings"):
        encoder.encode_texts("abc")


def test_rows_without_direction_become_nan_and_extreme_rows_survive():
    rows = torch.tensor(
        [[0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0], [3e38, 3e38], [3e-38, 4e-38], [3.0, 4.0]]
    )
    unit = unit_rows(rows)
    assert torch.isnan(unit[:3]).any(dim=1).all()
    torch.testing.assert_close(unit[3], torch.tensor([0.5**0.5, 0.5**0.5]))
    torch.testing.assert_close(unit[4:], torch.tensor([[0.6, 0.8], [0.6, 0.8]]))


def test_check_accepts_a_sound_encoder():
    check_encoder(LinearEncoder())


@pytest.mark.parametrize(
    ("after", "feature_dim", "message"),
    [
        (BatchCentred(), 5, "other images in its batch"),
        (AlwaysDropout(), 5, "returns different features for the same images"),
        (SquareRootOfNegative(), 5, "NaN or infinite"),
        (None, 6, "expected"),
    ],
)
def test_check_finds_what_breaks_the_contract(after, feature_dim, message):
    with pytest.raises(EncoderError, match=message):
        check_encoder(LinearEncoder(after, feature_dim))
