"""Small encoders whose worst perturbation is known in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from smoothcert.encoders.base import Encoder


class LinearEncoder(Encoder):
    """u(x) = normalised W (x - 1/2): with orthonormal class features, a linear classifier."""

    def __init__(self, classes: int = 5, side: int = 6, seed: int = 0) -> None:
        super().__init__(name="linear", digest="0", feature_dim=classes, input_size=(side, side))
        self.weight = torch.randn(classes, 3 * side * side, generator=torch.Generator().manual_seed(seed))

    def prepare(self, image: Any) -> NDArray[np.uint8]:
        raise NotImplementedError

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        # Elementwise, so that a row's bits do not depend on how many rows there are.
        return ((pixels - 0.5).flatten(1)[:, None] * self.weight).sum(-1)

    def _text_features(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.eye(self.feature_dim)[: len(texts)]


class PatchyEncoder(LinearEncoder):
    """Also shows each of the four quarters of the image as a patch token."""

    def _patch_features(self, pixels: torch.Tensor) -> torch.Tensor:
        half = self.input_size[0] // 2
        quarters = [pixels[:, :, a : a + half, b : b + half] for a in (0, half) for b in (0, half)]
        return torch.stack([quarter.flatten(1) - 0.5 for quarter in quarters], dim=1)


@pytest.fixture
def linear() -> LinearEncoder:
    return LinearEncoder()


@pytest.fixture
def patchy() -> PatchyEncoder:
    return PatchyEncoder()


def make_images(pairs: int, side: int = 6, seed: int = 1) -> torch.Tensor:
    """Images well inside the box, so that closed forms without the box hold for small budgets."""
    return torch.rand(pairs, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 0.4 + 0.3


@pytest.fixture
def images() -> torch.Tensor:
    return make_images(8)


@pytest.fixture
def pair_ids() -> list[str]:
    return [f"pair-{row}" for row in range(8)]
