"""What one step sees: a function of the seed, the stage and the step alone, so that training resumes exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F

from smoothcert.engine.noise import Stream, generator, noise_key
from smoothcert.job import TrainSection
from smoothcert.training.examples import Examples
from smoothcert.training.team import ALONE, Team, share_of

_SHIFT, _TURN, _SCALE = 0.06, math.radians(12), 0.1
"""Largest move as a share of the image, angle, and change of size, of an augmented image."""


@dataclass(frozen=True, slots=True)
class BatchShare:
    """What one member of a team has of a batch.

    Attributes:
        team: which members there are.
        whole: images of the batch.
    """

    team: Team
    whole: int

    @property
    def rows(self) -> slice:
        """Rows of the batch that are here; at least one, where there are no more members than rows."""
        return share_of(self.team, self.whole)

    def mean(self, own: torch.Tensor) -> torch.Tensor:
        """From means over the rows that are here to means over the whole batch (``Team.total``)."""
        rows = self.rows
        return self.team.total(own * ((rows.stop - rows.start) / self.whole))


@dataclass(frozen=True, slots=True)
class Batch:
    """Images and their noise: of a whole batch, or of one member's share of it.

    Attributes:
        images: float32 (B, 3, H, W) in [0,1].
        noise: the same shape, standard normal.
        sigma: (B,) noise levels, units of [0,1] pixels.
        classes: (B,) indices, or ``UNKNOWN``.
        seed: of whatever else is random in the step.
        share: which part of a batch this is.
    """

    images: torch.Tensor
    noise: torch.Tensor
    sigma: torch.Tensor
    classes: torch.Tensor
    seed: int
    share: BatchShare

    @property
    def noisy(self) -> torch.Tensor:
        """The images with their noise."""
        return torch.addcmul(self.images, self.noise, self.sigma.view(-1, 1, 1, 1))


def training_batch(
    examples: Examples,
    section: TrainSection,
    sigma: tuple[float, float],
    stage: str,
    position: int,
    team: Team = ALONE,
) -> Batch:
    """The batch at a position: each image once an epoch, in an order of that epoch, under noise of this position.

    Of a team each member gets its share, of the same images with the same noise as if it were alone.
    """
    size = min(section.batch, len(examples))
    epoch, number = divmod(position, len(examples) // size)
    order = _order(section.seed, stage, epoch, len(examples))
    share = BatchShare(team, size)
    rows = order[number * size : (number + 1) * size][share.rows].to(examples.pixels.device)
    source = _keyed(section.seed, stage, position, examples.pixels.device)
    images = examples.images(rows)
    if section.augment:
        images = _moved(images, source, share)
    key = _seed(section.seed, stage, position)
    return _with_noise(images, examples.classes[rows], sigma, source, key, share)


def validation_batch(
    examples: Examples,
    rows: slice,
    sigma: tuple[float, float],
    stage: str,
    seed: int,
    team: Team = ALONE,
) -> Batch:
    """Held-out images under noise that is the same at every validation; of a team, a member's share of them."""
    first = rows.start or 0
    source = _keyed(seed, f"{stage} validation", first, examples.pixels.device)
    key = _seed(seed, f"{stage} validation", first)
    share = BatchShare(team, rows.stop - first)
    own = slice(first + share.rows.start, first + share.rows.stop)
    return _with_noise(examples.images(own), examples.classes[own], sigma, source, key, share)


@lru_cache(maxsize=1)
def _order(seed: int, stage: str, epoch: int, count: int) -> torch.Tensor:
    """The order of an epoch; its steps follow each other, so that the last one is worth keeping."""
    cpu = torch.device("cpu")
    return torch.randperm(count, generator=_keyed(seed, f"{stage} order", epoch, cpu), device=cpu)


def _with_noise(
    images: torch.Tensor,
    classes: torch.Tensor,
    sigma: tuple[float, float],
    source: torch.Generator,
    seed: int,
    share: BatchShare,
) -> Batch:
    # noise of the whole batch, so that an image has the same whoever holds it
    noise = torch.randn((share.whole, *images.shape[1:]), generator=source, device=images.device)
    low, high = sigma
    levels = low + (high - low) * torch.rand(share.whole, generator=source, device=images.device)
    return Batch(images, noise[share.rows], levels[share.rows], classes, seed, share)


def _seed(seed: int, what: str, number: int) -> int:
    return noise_key(seed, what, Stream.TRAIN, number) >> 66


def _keyed(seed: int, what: str, number: int, device: torch.device) -> torch.Generator:
    return generator(noise_key(seed, what, Stream.TRAIN, number), device)


def _moved(images: torch.Tensor, source: torch.Generator, share: BatchShare) -> torch.Tensor:
    """Each image moved, turned and scaled a little; what comes in from outside is black."""
    count = len(images)
    random = 2 * torch.rand((share.whole, 4), generator=source, device=images.device)[share.rows] - 1
    angle, scale = random[:, 0] * _TURN, 1 + _SCALE * random[:, 1]
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    across, along = 2 * _SHIFT * random[:, 2], 2 * _SHIFT * random[:, 3]
    rows = torch.stack((cos, -sin, across, sin, cos, along), dim=1).view(count, 2, 3)
    grid = F.affine_grid(rows, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False).clamp_(0, 1)
