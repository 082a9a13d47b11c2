"""The losses of a purifier and of a mapper, in parts that add up (Xia et al. 2026, arXiv 2601.16200)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F

Losses = Mapping[str, torch.Tensor]
"""Parts of a loss by name, each a scalar with its weight in it."""
TakeMean = Callable[[torch.Tensor], torch.Tensor]
"""From means over the rows that are here to means over those of the whole batch (``BatchShare.mean``)."""


def cosine_loss(features: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean of 1 - cos over the rows of (..., d)."""
    return 1 - F.cosine_similarity(features.float(), wanted.float(), dim=-1).mean()


def denoising_loss(estimate: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the estimated noise, in units of sigma."""
    return F.mse_loss(estimate.float(), noise)


def here(mean: torch.Tensor) -> torch.Tensor:
    """A ``Mean`` where all rows are here."""
    return mean


def moments_loss(features: torch.Tensor, wanted: torch.Tensor, over_batch: TakeMean = here) -> torch.Tensor:
    """Squared errors of mean and standard deviation of each dimension over the batch, summed over dimensions.

    Both are taken of unit features.

    Args:
        features: rows (..., d) that are here.
        wanted: the same shape.
        over_batch: makes means over the batch of those over these rows.
    """
    rows = torch.stack([F.normalize(each.float().flatten(0, -2), dim=-1) for each in (features, wanted)])
    means = over_batch(rows.mean(dim=1))
    # a variance does not change with the point that it is taken around, to first order: so no gradient goes through it
    around = means.detach().unsqueeze(1)
    # with a gradient where all rows are the same
    spreads = (over_batch((rows - around).square().mean(dim=1)) + 1e-8).sqrt()
    return (means[0] - means[1]).square().sum() + (spreads[0] - spreads[1]).square().sum()


def identity_loss(mapped: torch.Tensor, features: torch.Tensor, over_batch: TakeMean = here) -> torch.Tensor:
    """Mean over the batch of |M(z, 0) - z|^2, relative to the mean |z|^2; arguments as for ``moments_loss``."""
    off = (mapped.float() - features.float()).square().sum(dim=-1).mean()
    length = features.float().square().sum(dim=-1).mean()
    off, length = over_batch(torch.stack([off, length])).unbind()
    return off / length.clamp_min(1e-12)
