"""The losses of a purifier and of a mapper, in parts that add up (Xia et al. 2026, arXiv 2601.16200)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

Losses = Mapping[str, torch.Tensor]
"""Parts of a loss by name, each a scalar with its weight in it."""


def cosine_loss(features: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean of 1 - cos over the rows of (..., d)."""
    return 1 - F.cosine_similarity(features.float(), wanted.float(), dim=-1).mean()


def denoising_loss(estimate: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the estimated noise, in units of sigma."""
    return F.mse_loss(estimate.float(), noise)


def moments_loss(features: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Squared errors of mean and standard deviation of each dimension over the rows, summed over dimensions.

    Both are taken of unit features.
    """
    ours, theirs = (F.normalize(rows.float().flatten(0, -2), dim=-1) for rows in (features, wanted))
    means = (ours.mean(dim=0) - theirs.mean(dim=0)).square().sum()
    spreads = _spread(ours) - _spread(theirs)
    return means + spreads.square().sum()


def identity_loss(mapped: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Mean over the rows of |M(z, 0) - z|^2, relative to the mean |z|^2."""
    off = (mapped.float() - features.float()).square().sum(dim=-1).mean()
    return off / features.float().square().sum(dim=-1).mean().clamp_min(1e-12)


def _spread(rows: torch.Tensor) -> torch.Tensor:
    """Standard deviations of columns; with a gradient where all rows are the same."""
    return (rows.var(dim=0, correction=0) + 1e-8).sqrt()
