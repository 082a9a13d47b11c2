"""Random crops, resized to a wanted grid, differentiable, keyed by pair."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from smoothcert.attacks.noise import NoiseKey, uniforms

ASPECTS = (3 / 4, 4 / 3)
"""Aspect ratios of crops, log-uniform, as in the usual random resized crop."""


def random_crops(
    images: torch.Tensor, keys: list[NoiseKey], scale: tuple[float, float], size: tuple[int, int]
) -> torch.Tensor:
    """One random crop of each image, resized bilinearly.

    Args:
        images: (k, 3, H, W).
        keys: one a pair.
        scale: smallest and largest share of the area that a crop keeps.
        size: (h, w) of the result.

    Returns:
        (k, 3, h, w), differentiable with respect to ``images``.
    """
    numbers = uniforms(keys, (4,), images.device)
    area = scale[0] + (scale[1] - scale[0]) * numbers[:, 0]
    low, high = math.log(ASPECTS[0]), math.log(ASPECTS[1])
    aspect = torch.exp(low + (high - low) * numbers[:, 1])
    # Shares of the sides that the crop spans; a crop wider than the image becomes the full width.
    across, down = (area * aspect).sqrt().clamp_max(1.0), (area / aspect).sqrt().clamp_max(1.0)
    # Centres in [-1, 1], such that the crop stays inside.
    x, y = (1 - across) * (2 * numbers[:, 2] - 1), (1 - down) * (2 * numbers[:, 3] - 1)
    zero = torch.zeros_like(x)
    maps = torch.stack((torch.stack((across, zero, x), 1), torch.stack((zero, down, y), 1)), 1)
    grid = F.affine_grid(maps, [len(images), images.shape[1], *size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def resize(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Images on another grid, bilinearly and without aliasing; unchanged where the size fits."""
    if tuple(images.shape[2:]) == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
