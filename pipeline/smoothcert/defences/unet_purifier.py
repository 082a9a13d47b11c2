"""A small residual U-Net that takes noise out of small images in one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from smoothcert.defences.noise_level import FiLM, SigmaEmbedding

_SPREAD = 0.5
"""About the standard deviation of pixels: what inputs are scaled by, together with sigma."""
_GROUP = 8


class UNetPurifier(torch.nn.Module):
    """P(x, sigma) = x - sigma e(x, sigma), with e a U-Net that estimates the noise in units of sigma.

    At sigma 0 it returns its input, and as made, before training, at every sigma. Nothing is clamped. Pixels are first
    gathered in cells of ``patch`` x ``patch``, which keeps it fast on a CPU; each further level halves the resolution.

    Args:
        input_size: (H, W) of x, multiples of ``patch``.
        channels: of each level, multiples of 8.
        patch: edge of a cell.

    Raises:
        ValueError: a setting is wrong.
    """

    kind: ClassVar[str] = "unet_purifier"
    conditioned: ClassVar[bool] = True

    def __init__(
        self, input_size: Sequence[int], channels: Sequence[int] = (32, 64, 96), patch: int = 2
    ) -> None:
        super().__init__()
        height, width = input_size
        if patch < 1 or height % patch or width % patch or min(height, width) < 1:
            raise ValueError(f"input_size={(height, width)} is not a multiple of patch={patch}")
        if not channels or any(count < _GROUP or count % _GROUP for count in channels):
            raise ValueError(f"channels={list(channels)} must be multiples of {_GROUP}, one a level")
        self.settings = {
            "input_size": [int(height), int(width)],
            "channels": [int(count) for count in channels],
            "patch": int(patch),
        }
        self.input_size = (int(height), int(width))
        self.patch = int(patch)
        pixels = 3 * patch * patch
        self.embedding = SigmaEmbedding()
        self.enter = torch.nn.Conv2d(pixels, channels[0], 3, padding=1)
        self.down = torch.nn.ModuleList()
        self.up = torch.nn.ModuleList()
        for level, count in enumerate(channels):
            before = channels[max(level - 1, 0)]
            self.down.append(_ConvolutionBlock(before, count))
            if level < len(channels) - 1:
                self.up.append(_ConvolutionBlock(count + channels[level + 1], count))
        self.middle = _ConvolutionBlock(channels[-1], channels[-1])
        self.leave = torch.nn.Conv2d(channels[0], pixels, 3, padding=1)
        for parameter in self.leave.parameters():
            torch.nn.init.zeros_(parameter)

    @classmethod
    def restore(cls, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> UNetPurifier:
        """The module that a file holds."""
        made = cls(**settings)
        made.load_state_dict(dict(tensors))
        return made

    def noise(self, pixels: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The estimate of the noise in x, in units of sigma.

        Args:
            pixels: float32 (B, 3, H, W), clean images plus noise.
            sigma: (B,) standard deviations of the noise, units of [0,1] pixels.

        Returns:
            (B, 3, H, W).
        """
        embedded = self.embedding(sigma)
        scale = torch.rsqrt(sigma.float() ** 2 + _SPREAD**2).view(-1, 1, 1, 1)
        hidden = self.enter(F.pixel_unshuffle((pixels - 0.5) * scale, self.patch))
        kept = []
        for level, block in enumerate(self.down):
            if level:
                hidden = F.avg_pool2d(hidden, 2, ceil_mode=True)
            hidden = block(hidden, embedded)
            kept.append(hidden)
        hidden = self.middle(kept.pop(), embedded)
        for block in reversed(self.up):
            beside = kept.pop()
            hidden = F.interpolate(hidden, size=beside.shape[2:], mode="nearest")
            hidden = block(torch.cat((hidden, beside), dim=1), embedded)
        return F.pixel_shuffle(self.leave(F.silu(hidden)), self.patch)

    def forward(self, pixels: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The purified images; arguments as for ``noise``."""
        return pixels - sigma.view(-1, 1, 1, 1) * self.noise(pixels, sigma).float()


class _ConvolutionBlock(torch.nn.Module):
    """h + conv(FiLM(norm(conv(h)))): (B, before, H, W) to (B, after, H, W)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(before, after, 3, padding=1)
        self.norm = torch.nn.GroupNorm(after // _GROUP, after)
        self.film = FiLM(after, axis=1)
        self.second = torch.nn.Conv2d(after, after, 3, padding=1)
        self.aside = torch.nn.Conv2d(before, after, 1) if before != after else torch.nn.Identity()

    def forward(self, hidden: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
        inner = self.film(self.norm(self.first(F.silu(hidden))), embedded)
        summed: torch.Tensor = self.aside(hidden) + self.second(F.silu(inner))
        return summed
