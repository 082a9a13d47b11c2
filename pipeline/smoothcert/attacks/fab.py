"""Fast adaptive boundary attack (Croce and Hein 2020, 1907.02044): the nearest point of success."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from smoothcert.attacks.base import Attack, AttackSettings
from smoothcert.attacks.campaign import Campaign, keep, per_pair
from smoothcert.attacks.hyperplanes import nearest_on_hyperplane
from smoothcert.attacks.norms import Norm, column, difference, measured_norm
from smoothcert.attacks.objectives.base import Objective
from smoothcert.attacks.objectives.classification import ClassificationMargin, RivalMargin
from smoothcert.attacks.objectives.margin import MarginLoss

ALPHA_MAX = 0.1
"""Largest weight of the clean image's own projection."""
OVERSHOOT = 1.05
"""eta: steps go this much beyond the linearised edge."""
BACKWARD = 0.9
"""beta: after success, this share of the perturbation is kept."""
FINAL_HALVINGS = 5
"""Bisections between the clean image and the nearest success, at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FABSettings(AttackSettings):
    """Settings of ``FAB``.

    Attributes:
        steps: of each start; each asks for one gradient and one check.
        restarts: starts of pairs still unsolved; all but the first are random.
        targets: classes tried for classification, nearest rival first (FAB-T); each takes ``restarts``
            starts.
    """

    steps: int = 100
    restarts: int = 1
    targets: int = 9

    def __post_init__(self) -> None:
        self.need_at_least(1, "steps", "restarts", "targets")


class FAB(Attack[FABSettings]):
    """Steps to the linearised edge of success, biased towards the clean image.

    ``AttackRecord.distance`` is the smallest norm found; with ``early_stop`` the search ends inside the
    budget.
    """

    def search(self, campaign: Campaign) -> None:
        """See ``Attack.search``."""
        nearest = campaign.images.clone()
        for label, objective in self._objectives(campaign):
            for restart in range(self.settings.restarts):
                rows = campaign.open_rows()
                if len(rows):
                    start = self._start(campaign, rows, f"fab:{label}:{restart}", restart)
                    self._walk(campaign, objective, rows, start, nearest)
        self._final_search(campaign, nearest)

    def _objectives(self, campaign: Campaign) -> list[tuple[int, Objective]]:
        goal = campaign.objective
        if not isinstance(goal, ClassificationMargin):
            return [(0, MarginLoss(goal))]
        rivals = min(self.settings.targets, len(goal.class_features) - 1)
        clean = campaign.clean.features
        return [
            (rank, RivalMargin(goal.class_features, goal.labels, goal.rival_targets(clean, rank)))
            for rank in range(1, rivals + 1)
        ]

    def _start(self, campaign: Campaign, rows: torch.Tensor, label: str, restart: int) -> torch.Tensor:
        """The clean image, or a random point within half of the smaller of budget and distance so far."""
        if restart == 0 and not campaign.objective.flat_at_clean:
            return campaign.starts(rows, label, random=False)
        images, budget = campaign.images[rows], campaign.ball.budget[rows]
        share = torch.fmin(budget, campaign.distance[rows]) / budget / 2
        random = campaign.starts(rows, label, random=True)
        return images + per_pair(share, images) * (random - images)

    def _walk(
        self,
        campaign: Campaign,
        objective: Objective,
        rows: torch.Tensor,
        points: torch.Tensor,
        nearest: torch.Tensor,
    ) -> None:
        for _ in range(self.settings.steps):
            answer = campaign.ask(rows, points, objective, inside=False)
            keep_nearest(campaign, nearest, rows, points, answer.margin)
            still = campaign.is_open(rows)
            rows, points, gradient, loss = keep(still, rows, points, answer.gradient, answer.loss)
            if not len(rows):
                return
            points = self._step(campaign.images[rows], points, gradient, loss, campaign.norm)
            margin = campaign.ask(rows, points, objective, gradient=False, inside=False).margin
            keep_nearest(campaign, nearest, rows, points, margin)
            images = campaign.images[rows]
            back = images + BACKWARD * (points - images)
            points = torch.where(column(margin < 0, points), back, points)

    @staticmethod
    def _step(
        images: torch.Tensor, points: torch.Tensor, gradient: torch.Tensor, loss: torch.Tensor, norm: Norm
    ) -> torch.Tensor:
        """Step just beyond the linearised edge of success, where loss + <gradient, z - points> = 0."""
        gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
        apart = (gradient.double() * difference(images, points)).flatten(1).sum(dim=1)
        own = nearest_on_hyperplane(points, gradient, -loss, norm) - points
        clean = nearest_on_hyperplane(images, gradient, -loss.double() - apart, norm) - images
        own_length, clean_length = measured_norm(own, norm), measured_norm(clean, norm)
        alpha = (own_length / (own_length + clean_length).clamp_min(1e-300)).clamp_max(ALPHA_MAX)
        weight = per_pair(alpha, points)
        moved = (1 - weight) * (points + OVERSHOOT * own) + weight * (images + OVERSHOOT * clean)
        return moved.clamp(0.0, 1.0)

    def _final_search(self, campaign: Campaign, nearest: torch.Tensor) -> None:
        """Bisect towards the clean image where a success was seen; then offer the nearest one in the ball."""
        rows = campaign.open_rows()
        found = rows[torch.isfinite(campaign.distance[rows])]
        images = campaign.images[found]
        low, high = (
            torch.zeros(len(found), device=images.device),
            torch.ones(len(found), device=images.device),
        )
        far = nearest[found].clone()
        for _ in range(FINAL_HALVINGS if len(found) else 0):
            middle = (low + high) / 2
            points = images + per_pair(middle, images) * (far - images)
            margin = campaign.ask(found, points, gradient=False, inside=False).margin
            keep_nearest(campaign, nearest, found, points, margin)
            low, high = torch.where(margin < 0, low, middle), torch.where(margin < 0, middle, high)
        show_nearest(campaign, nearest)


def keep_nearest(
    campaign: Campaign, nearest: torch.Tensor, rows: torch.Tensor, points: torch.Tensor, margin: torch.Tensor
) -> None:
    """Write successful points into ``nearest`` (whole batch) where they are the nearest of the pair so far.

    Call it after the campaign was asked about the points: it has noted their distance by then.
    """
    norms = measured_norm(difference(points, campaign.images[rows]), campaign.norm)
    best = (margin < 0) & (norms <= campaign.distance[rows])
    nearest[rows[best]] = points[best]


def show_nearest(campaign: Campaign, nearest: torch.Tensor) -> None:
    """Offer, for pairs still open, the nearest success cut down to the budget."""
    rows = campaign.open_rows()
    rows = rows[torch.isfinite(campaign.distance[rows])]
    if len(rows):
        points = campaign.ball.select(rows).project(nearest[rows])
        campaign.ask(rows, points, gradient=False)
        campaign.settle(rows, points)
