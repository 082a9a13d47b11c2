"""Carlini and Wagner's l2 attack (1608.04644): the smallest perturbation, by a penalty and binary search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from smoothcert.attacks.base import Attack, AttackSettings
from smoothcert.attacks.campaign import Campaign, keep, per_pair
from smoothcert.attacks.fab import keep_nearest, show_nearest
from smoothcert.attacks.norms import Norm
from smoothcert.attacks.objectives.margin import MarginLoss

NEAR_ONE = 1 - 1e-6
"""Pixels are pulled this far inside the box, so that their tanh coordinates are finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CarliniWagnerSettings(AttackSettings):
    """Settings of ``CarliniWagner``.

    Attributes:
        steps: Adam steps for each weight.
        weights: weights tried for each pair (binary search).
        first_weight: of the margin against the squared norm. Margins are cosines here, not logits, so it
            starts higher than the paper's 0.001.
        learning_rate: of Adam, in tanh coordinates.
        confidence: kappa, the margin to go beyond success.
    """

    steps: int = 100
    weights: int = 6
    first_weight: float = 1.0
    learning_rate: float = 0.01
    confidence: float = 0.0

    def __post_init__(self) -> None:
        self.need_at_least(1, "steps", "weights")
        self.need_at_least(0, "confidence")
        self.need_positive("first_weight", "learning_rate")


class CarliniWagner(Attack[CarliniWagnerSettings]):
    """Minimises ‖x' - x‖² + c max(margin + kappa, 0) over w, with x' = (1 + tanh w)/2.

    Each pair searches for its best c. ``AttackRecord.distance`` is the smallest norm found; with
    ``early_stop`` the search ends inside the budget.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("l2",)

    def search(self, campaign: Campaign) -> None:
        """See ``Attack.search``."""
        pairs, device = len(campaign.images), campaign.images.device
        nearest = campaign.images.clone()
        weight = torch.full((pairs,), self.settings.first_weight, device=device)
        low, high = torch.zeros_like(weight), torch.full_like(weight, torch.inf)
        for attempt in range(self.settings.weights):
            rows = campaign.open_rows()
            if not len(rows):
                break
            won = self._minimise(campaign, rows, weight, nearest, attempt)
            high[rows] = torch.where(won, weight[rows], high[rows])
            low[rows] = torch.where(won, low[rows], weight[rows])
            weight = torch.where(torch.isinf(high), weight * 10, (low + high) / 2)
        show_nearest(campaign, nearest)

    def _minimise(
        self,
        campaign: Campaign,
        rows: torch.Tensor,
        weight: torch.Tensor,
        nearest: torch.Tensor,
        attempt: int,
    ) -> torch.Tensor:
        """Adam for one weight a pair; returns which of ``rows`` succeeded at some step."""
        asked, won = rows, torch.zeros(len(weight), dtype=torch.bool, device=rows.device)
        objective = MarginLoss(campaign.objective)
        start = campaign.starts(rows, f"cw:{attempt}", random=True)
        share = 0.01 if campaign.objective.flat_at_clean else 0.0
        start = campaign.images[rows] + share * (start - campaign.images[rows])
        w = torch.atanh((2 * start - 1) * NEAR_ONE)
        first, second = torch.zeros_like(w), torch.zeros_like(w)
        for step in range(1, self.settings.steps + 1):
            tanh = torch.tanh(w)
            points = (1 + tanh) / 2
            answer = campaign.ask(rows, points, objective, inside=False)
            keep_nearest(campaign, nearest, rows, points, answer.margin)
            won[rows] |= answer.margin < -self.settings.confidence
            still = campaign.is_open(rows)
            wanting = answer.margin + self.settings.confidence > 0
            # The loss asked for is minus the margin, hence the minus.
            pull = -answer.gradient * per_pair(weight[rows] * wanting, points)
            slope = (2 * (points - campaign.images[rows]) + torch.nan_to_num(pull)) * (1 - tanh**2) / 2
            first = 0.9 * first + 0.1 * slope
            second = 0.999 * second + 0.001 * slope**2
            size = self.settings.learning_rate / (1 - 0.9**step)
            w = w - size * first / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
            rows, w, first, second = keep(still, rows, w, first, second)
            if not len(rows):
                break
        return won[asked]
