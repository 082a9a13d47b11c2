"""Projected gradient descent (Madry et al. 2018, 1706.06083), with EOT where the subject is random."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from smoothcert.attacks.base import Attack, AttackSettings
from smoothcert.attacks.campaign import Campaign, keep, per_pair
from smoothcert.errors import JobError


@dataclass(frozen=True, slots=True, kw_only=True)
class PGDSettings(AttackSettings):
    """Settings of ``PGD``.

    Attributes:
        steps: gradient steps of each start.
        restarts: starts, of pairs still unsolved.
        random_start: start from a random point of the ball, else from the clean image (a loss that is flat
            there, like divergence, then never moves).
        step_size: of one step, as a share of the pair's budget; default 10 / steps, at most 1. (The paper's
            code has 2.5 / steps; on the bundled encoder larger steps that shrink were stronger in both
            norms.)
        step_rule: ``constant``, or ``cosine``: from twice ``step_size`` down to zero.
    """

    steps: int = 40
    restarts: int = 1
    random_start: bool = True
    step_size: float | None = None
    step_rule: Literal["constant", "cosine"] = "cosine"

    def __post_init__(self) -> None:
        self.need_at_least(1, "steps", "restarts")
        self.need_positive("step_size")
        if self.step_rule not in ("constant", "cosine"):
            raise JobError(f"step_rule='{self.step_rule}' is unknown", remedy="use constant or cosine")

    def share(self, step: int) -> float:
        """Size of one step as a share of the budget."""
        size = min(10 / self.steps, 1.0) if self.step_size is None else self.step_size
        if self.step_rule == "constant":
            return size
        return size * (1 + math.cos(math.pi * step / self.steps))


class PGD(Attack[PGDSettings]):
    """x <- project(x + step * steepest(gradient)); the best iterate counts, the last one included."""

    def search(self, campaign: Campaign) -> None:
        """See ``Attack.search``."""
        for restart in range(self.settings.restarts):
            rows = campaign.open_rows()
            if not len(rows):
                return
            points = campaign.starts(rows, restart, random=self.settings.random_start)
            for step in range(self.settings.steps):
                answer = campaign.ask(rows, points)
                rows, points, gradient = keep(campaign.is_open(rows), rows, points, answer.gradient)
                if not len(rows):
                    break
                ball = campaign.ball.select(rows)
                size = per_pair(ball.budget * self.settings.share(step), points)
                points = ball.near(torch.addcmul(points, ball.steepest(gradient), size))
            else:
                campaign.ask(rows, points, gradient=False)
            campaign.settle(rows, points)
