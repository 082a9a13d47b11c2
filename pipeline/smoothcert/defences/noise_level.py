"""How a module learns which noise it works at: an embedding of sigma, and scales and shifts made of it (FiLM)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

FREQUENCIES = 8
EMBEDDING = 64
"""Numbers that a noise level becomes."""
_SMALLEST = 1e-2
"""Levels much below this, units of [0,1] pixels, look the same to a module; zero is one of them."""


class SigmaEmbedding(torch.nn.Module):
    """Noise levels (B,), zero included, to (B, ``EMBEDDING``): waves of log sigma, then two layers."""

    waves: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        waves = torch.pi * 2.0 ** (torch.arange(FREQUENCIES) / 2 - 2)
        self.register_buffer("waves", waves, persistent=False)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(2 * FREQUENCIES, EMBEDDING),
            torch.nn.SiLU(),
            torch.nn.Linear(EMBEDDING, EMBEDDING),
            torch.nn.SiLU(),
        )

    def forward(self, sigma: torch.Tensor) -> torch.Tensor:
        """The embedding of each level."""
        level = torch.log(sigma.float() + _SMALLEST) - math.log(_SMALLEST)
        angles = level[:, None] / 4 * self.waves
        embedded: torch.Tensor = self.layers(torch.cat((angles.sin(), angles.cos()), dim=1))
        return embedded


class FiLM(torch.nn.Module):
    """h * (1 + a) + b, with a and b made of the embedding (Perez et al. 2018); does nothing at the start.

    Args:
        channels: of h.
        axis: where h, of ``ndim`` axes, has them: 1 for (B, C, H, W), -1 for (B, T, C).
    """

    def __init__(self, channels: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.layer = torch.nn.Linear(EMBEDDING, 2 * channels)
        torch.nn.init.zeros_(self.layer.weight)
        torch.nn.init.zeros_(self.layer.bias)

    def forward(self, hidden: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
        """The modulated h."""
        shape = [1] * hidden.ndim
        shape[0], shape[self.axis] = len(hidden), hidden.shape[self.axis]
        scale, shift = self.layer(embedded).chunk(2, dim=1)
        return torch.addcmul(shift.view(shape), hidden, 1 + scale.view(shape))


@dataclass(frozen=True, slots=True)
class TrainedFor:
    """What a part was trained for and on.

    Attributes:
        sigma: smallest and largest noise level, units of [0,1] pixels.
        encoder_digest: of the encoder that it was trained around.
        data_digest: of the training data.
        recipe: hex digest of the settings of training.
    """

    sigma: tuple[float, float]
    encoder_digest: str
    data_digest: str
    recipe: str

    def covers(self, sigma: float) -> bool:
        """Whether a level is within the trained range, up to rounding."""
        low, high = self.sigma
        return low * (1 - 1e-9) <= sigma <= high * (1 + 1e-9)


class AtSigma(torch.nn.Module):
    """A noise-conditioned module at one level: what stands in an encoder, which knows no noise.

    Args:
        module: takes (B, ...) and levels (B,).
        sigma: units of [0,1] pixels.
        trained: what the module was trained for, where that is known.
    """

    def __init__(self, module: torch.nn.Module, sigma: float, trained: TrainedFor | None = None) -> None:
        super().__init__()
        self.module = module
        self.sigma = sigma
        self.trained = trained

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The module's answer at this level."""
        level = torch.full((len(inputs),), self.sigma, device=inputs.device)
        answer: torch.Tensor = self.module(inputs, level)
        return answer
