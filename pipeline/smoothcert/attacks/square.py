"""Square attack (Andriushchenko et al. 2020, 1912.00049): random search, no gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from smoothcert.attacks.base import Attack, AttackSettings
from smoothcert.attacks.campaign import Campaign, keep, per_pair
from smoothcert.attacks.noise import uniforms
from smoothcert.errors import JobError

NUMBERS = 8
"""Uniform numbers one step takes: two corners (4), a sign a channel (3), an orientation."""
BLOCK = 250
"""Steps whose numbers are drawn together; drawing them singly would cost more than the encoder."""
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Steps, of 10,000, at which the share of changed pixels halves (the paper's schedule)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SquareSettings(AttackSettings):
    """Settings of ``Square``.

    Attributes:
        steps: queries of each start.
        restarts: starts, of pairs still unsolved.
        share: p, the share of pixels that the first squares change (0.8 in AutoAttack).
    """

    steps: int = 5000
    restarts: int = 1
    share: float = 0.8

    def __post_init__(self) -> None:
        self.need_at_least(1, "steps", "restarts")
        if not 0 < self.share <= 1:
            raise JobError(f"share={self.share} is not a share of pixels", remedy="use a number in (0, 1]")


class Square(Attack[SquareSettings]):
    """Changes one square at a time and keeps what lowers the margin; a check for masked gradients.

    Where the subject is random, all queries of a pair use the same draws, so that margins can be compared.
    """

    needs_gradients: ClassVar[bool] = False

    def search(self, campaign: Campaign) -> None:
        """See ``Attack.search``."""
        for restart in range(self.settings.restarts):
            rows = campaign.open_rows()
            if not len(rows):
                return
            campaign.count_restart(rows)
            self._descend(campaign, rows, f"square:{restart}")

    def _descend(self, campaign: Campaign, rows: torch.Tensor, label: str) -> None:
        height, width = campaign.images.shape[2:]
        ball = campaign.ball.select(rows)
        points = (
            self._stripes(campaign, rows, label)
            if ball.norm == "linf"
            else self._tiles(campaign, rows, label)
        )
        points = ball.project(points)
        margin = campaign.ask(rows, points, gradient=False, same_noise=True).margin
        numbers = torch.empty(0)
        for step in range(self.settings.steps - 1):
            still = campaign.is_open(rows)
            rows, points, margin = keep(still, rows, points, margin)
            if not len(rows):
                return
            if step % BLOCK == 0:
                keys = campaign.keys(rows, label, "block", step // BLOCK)
                numbers = uniforms(keys, (BLOCK, NUMBERS), points.device)
            else:
                (numbers,) = keep(still, numbers)
            ball = campaign.ball.select(rows)
            share = self.settings.share * changed_share(step, self.settings.steps)
            side = round(math.sqrt(share * height * width))
            delta = points - ball.images
            if ball.norm == "linf":
                side = min(max(side, 1), min(height, width))
                changed = _flipped(delta, numbers[:, step % BLOCK], side, ball.budget)
            else:
                side = min(max(side, 3), min(height, width))
                changed = _moved_mass(delta, numbers[:, step % BLOCK], side, ball.budget)
            tried = ball.project(ball.images + changed)
            answer = campaign.ask(rows, tried, gradient=False, same_noise=True)
            better = answer.margin < margin
            points = torch.where(per_pair(better, points).bool(), tried, points)
            margin = torch.where(better, answer.margin, margin)
        campaign.settle(rows, points)

    @staticmethod
    def _stripes(campaign: Campaign, rows: torch.Tensor, label: str) -> torch.Tensor:
        """Vertical stripes of plus or minus the budget, one sign a channel and column."""
        images = campaign.images[rows]
        signs = uniforms(campaign.keys(rows, label, "stripes"), (3, 1, images.shape[3]), images.device)
        return images + torch.where(signs < 0.5, -1.0, 1.0) * per_pair(campaign.ball.budget[rows], images)

    @staticmethod
    def _tiles(campaign: Campaign, rows: torch.Tensor, label: str) -> torch.Tensor:
        """A grid of five by five bumps of random signs, scaled to the budget."""
        images = campaign.images[rows]
        height, width = images.shape[2:]
        side = max(min(height, width) // 5, 1)
        down, across = math.ceil(height / side), math.ceil(width / side)
        tiles = uniforms(campaign.keys(rows, label, "tiles"), (3, down, across), images.device)
        signs = torch.where(tiles < 0.5, -1.0, 1.0)
        signs = signs.repeat_interleave(side, dim=2).repeat_interleave(side, dim=3)[:, :, :height, :width]
        pattern = bump(side, side, images.device).repeat(down, across)[:height, :width]
        delta = signs * pattern
        length = torch.linalg.vector_norm(delta.flatten(1), dim=1)
        return images + delta * per_pair(campaign.ball.budget[rows] / length, images)


def changed_share(step: int, steps: int) -> float:
    """The factor of p at a step: halved at each of ``HALVINGS``, scaled to the number of steps."""
    return 0.5 ** sum(step * 10_000 / steps > halving for halving in HALVINGS)


def bump(height: int, width: int, device: torch.device) -> torch.Tensor:
    """The paper's eta, equation 2: sum over k <= M(r, s) of 1/(n + 1 - k)^2, peaked in the middle."""
    half = height // 2
    r = (torch.arange(1, height + 1, device=device) - half - 1).abs()[:, None]
    s = (torch.arange(1, width + 1, device=device) - width // 2 - 1).abs()[None, :]
    reach = half - torch.maximum(r, s)
    terms = torch.stack([(reach >= k) / (half + 1 - k) ** 2 for k in range(half + 1)])
    profile: torch.Tensor = terms.sum(dim=0)
    return profile


def two_sided_bump(side: int, device: torch.device) -> torch.Tensor:
    """A square whose upper half is a bump and whose lower half is minus one, of unit norm: (side, side)."""
    top = side // 2
    square = torch.cat([bump(side, top, device).T, -bump(side, side - top, device).T])
    return torch.div(square, torch.linalg.vector_norm(square))


def _window(shape: torch.Size, corner: torch.Tensor, side: int) -> torch.Tensor:
    """Squares as masks: (k, 1, H, W) bool; ``corner`` holds uniform numbers (k, 2)."""
    height, width = shape[2:]
    top = (corner[:, 0] * (height - side + 1)).long()[:, None]
    left = (corner[:, 1] * (width - side + 1)).long()[:, None]
    y, x = torch.arange(height, device=corner.device), torch.arange(width, device=corner.device)
    down = (y >= top) & (y < top + side)
    across = (x >= left) & (x < left + side)
    return down[:, None, :, None] & across[:, None, None, :]


def _signs(numbers: torch.Tensor) -> torch.Tensor:
    return torch.where(numbers < 0.5, -1.0, 1.0)[:, :, None, None]


def _flipped(delta: torch.Tensor, numbers: torch.Tensor, side: int, budget: torch.Tensor) -> torch.Tensor:
    """Set one square of each perturbation to plus or minus the budget, a sign a channel."""
    window = _window(delta.shape, numbers[:, :2], side)
    return torch.where(window, _signs(numbers[:, 4:7]) * per_pair(budget, delta), delta)


def _moved_mass(delta: torch.Tensor, numbers: torch.Tensor, side: int, budget: torch.Tensor) -> torch.Tensor:
    """Move a second square's mass, and what the budget has left, into a first one (algorithm 3)."""
    first = _window(delta.shape, numbers[:, :2], side)
    second = _window(delta.shape, numbers[:, 2:4], side)
    square = two_sided_bump(side, delta.device)
    turned = (numbers[:, 7] < 0.5)[:, None, None]
    squares = torch.where(turned, square.T, square)
    placed = torch.zeros_like(delta)
    # masked_scatter fills each pair's window in row order, channel by channel.
    wide = first.expand_as(delta)
    placed = placed.masked_scatter(wide, squares[:, None].expand(-1, 3, -1, -1).contiguous())
    inside = delta * first
    length = _channel_norm(inside)
    fresh = _signs(numbers[:, 4:7]) * placed + inside / length.clamp_min(1e-12)
    unused = (budget**2 - delta.flatten(1).double().square().sum(dim=1)).clamp_min(0.0)
    available = (_channel_norm(delta * (first | second)) ** 2 + per_pair(unused / 3, delta)).sqrt()
    fresh = fresh / _channel_norm(fresh).clamp_min(1e-12) * available
    return torch.where(first, fresh, torch.where(second, 0.0, delta))


def _channel_norm(delta: torch.Tensor) -> torch.Tensor:
    norms: torch.Tensor = torch.linalg.vector_norm(delta, dim=(2, 3), keepdim=True)
    return norms
