"""The attack inside a training: images near the given ones with a large loss."""

from __future__ import annotations

from collections.abc import Callable

import torch

from smoothcert.attacks.noise import NoiseKey
from smoothcert.attacks.norms import Ball, column
from smoothcert.job.train import AdversarySection

_STEP = 2.5
"""Length of all steps of PGD together, in budgets (Madry et al. 2018)."""

AdversaryLoss = Callable[[torch.Tensor], torch.Tensor]
"""Images (B, 3, H, W) to a loss for each (B,)."""


def worst_images(
    images: torch.Tensor, loss: AdversaryLoss, adversary: AdversarySection, seed: int, first: int = 0
) -> torch.Tensor:
    """Images within the budget with a large loss: PGD from random points, the last iterate.

    Args:
        images: what is attacked; each by itself.
        loss: what is to be large.
        adversary: budget and steps.
        seed: of the points.
        first: row of the batch that the first image is; with the seed it keys the point that it begins at.
    """
    budget = torch.full((len(images),), adversary.budget, dtype=torch.float64, device=images.device)
    ball = Ball(images, budget, adversary.norm)
    points = ball.random_points(
        [NoiseKey(seed, str(row), "attack") for row in range(first, first + len(images))]
    )
    size = column(budget * _STEP / adversary.steps, images).float()
    for _ in range(adversary.steps):
        with torch.enable_grad():
            points = points.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(loss(points).sum(), points)
        points = ball.near(torch.addcmul(points.detach(), ball.steepest(gradient), size))
    return points.detach()
