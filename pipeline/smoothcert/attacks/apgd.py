"""Auto-PGD (Croce and Hein 2020, 2003.01690, algorithm 1): momentum, and steps that halve themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from smoothcert.attacks.base import Attack, AttackSettings
from smoothcert.attacks.campaign import Campaign, per_pair
from smoothcert.attacks.norms import Norm
from smoothcert.attacks.objectives.base import Objective
from smoothcert.attacks.objectives.classification import ClassificationMargin
from smoothcert.attacks.subjects import Subject
from smoothcert.errors import JobError

MOMENTUM = 0.75
SUCCESS_SHARE = 0.75
"""rho: share of steps that must have raised the loss for the step size to stay."""

APGDLoss = Literal["objective", "ce", "dlr", "dlr-targeted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class APGDSettings(AttackSettings):
    """Settings of ``APGD``.

    Attributes:
        steps: gradient steps of each start.
        restarts: random starts, of pairs still unsolved.
        loss: ``objective`` takes the objective's own; ``ce``, ``dlr`` and ``dlr-targeted`` are for
            classification.
        targets: classes tried with ``dlr-targeted``, nearest rival first; each takes ``restarts`` starts.
    """

    steps: int = 100
    restarts: int = 1
    loss: APGDLoss = "objective"
    targets: int = 9

    def __post_init__(self) -> None:
        self.need_at_least(1, "steps", "restarts", "targets")
        if self.loss not in ("objective", "ce", "dlr", "dlr-targeted"):
            raise JobError(f"loss='{self.loss}' is unknown", remedy="use objective, ce, dlr or dlr-targeted")


class APGD(Attack[APGDSettings]):
    """Parameter-free PGD: only the number of steps is chosen."""

    def check(self, subject: Subject, objective: Objective, norm: Norm) -> None:
        """See ``Attack.check``."""
        if self.settings.loss != "objective" and not isinstance(objective, ClassificationMargin):
            raise JobError(
                f"attack '{self.name}' with loss '{self.settings.loss}' needs the objective "
                f"'classification', not '{objective.name}'",
                remedy="use loss: objective, or another objective",
            )

    def search(self, campaign: Campaign) -> None:
        """See ``Attack.search``."""
        for label, objective in self._objectives(campaign):
            for restart in range(self.settings.restarts):
                rows = campaign.open_rows()
                if len(rows):
                    start = campaign.starts(rows, f"{label}:{restart}", random=True)
                    self._climb(campaign, objective, rows, start)

    def _objectives(self, campaign: Campaign) -> list[tuple[str, Objective]]:
        """The losses to climb, in order; targeted ones aim at the clean image's nearest rivals."""
        goal, loss = campaign.objective, self.settings.loss
        if loss == "objective" or not isinstance(goal, ClassificationMargin):
            return [(loss, goal)]
        if loss != "dlr-targeted":
            return [(loss, goal.with_loss(loss))]
        rivals = min(self.settings.targets, len(goal.class_features) - 1)
        return [
            (f"{loss}:{rank}", goal.with_loss(loss, goal.rival_targets(campaign.clean.features, rank)))
            for rank in range(1, rivals + 1)
        ]

    def _climb(
        self, campaign: Campaign, objective: Objective, rows: torch.Tensor, points: torch.Tensor
    ) -> None:
        checkpoints = checkpoint_steps(self.settings.steps)
        answer = campaign.ask(rows, points, objective)
        state = _Climb(rows, points, answer.loss, answer.gradient, campaign.ball.budget[rows])
        last_checkpoint = 0
        for step in range(1, self.settings.steps + 1):
            state.keep(campaign.is_open(state.rows))
            if not len(state.rows):
                return
            ball = campaign.ball.select(state.rows)
            size = per_pair(state.size, state.points)
            target = ball.project(state.points + size * ball.steepest(state.gradient))
            momentum = MOMENTUM if step > 1 else 1.0
            moved = state.points + momentum * (target - state.points)
            moved = ball.project(moved + (1 - momentum) * (state.points - state.before))
            answer = campaign.ask(state.rows, moved, objective, gradient=step < self.settings.steps)
            state.move(moved, answer.loss, answer.gradient)
            if step in checkpoints:
                state.halve_where_stuck(step - last_checkpoint)
                last_checkpoint = step
        campaign.settle(state.rows, state.best_points)


class _Climb:
    """State of the pairs that climb, one row each (names as in the paper where it names them)."""

    def __init__(
        self,
        rows: torch.Tensor,
        points: torch.Tensor,
        loss: torch.Tensor,
        gradient: torch.Tensor,
        budget: torch.Tensor,
    ) -> None:
        self.rows = rows
        self.points = self.before = self.best_points = points
        self.gradient = self.best_gradient = gradient
        self.loss = self.best_loss = self.best_at_checkpoint = loss
        self.size = 2 * budget
        self.rises = torch.zeros_like(loss)
        # Nothing to compare the first checkpoint with, so its second condition must not hold.
        self.halved = torch.ones_like(loss, dtype=torch.bool)

    def keep(self, still: torch.Tensor) -> None:
        """Drop pairs that left."""
        if not bool(still.all()):
            for name, value in vars(self).items():
                setattr(self, name, value[still])

    def move(self, points: torch.Tensor, loss: torch.Tensor, gradient: torch.Tensor) -> None:
        """One step was made."""
        self.before, self.points, self.gradient = self.points, points, gradient
        self.rises = self.rises + (loss > self.loss)
        self.loss = loss
        better = loss > self.best_loss
        self.best_loss = torch.where(better, loss, self.best_loss)
        wide = per_pair(better, points).bool()
        self.best_points = torch.where(wide, points, self.best_points)
        self.best_gradient = torch.where(wide, gradient, self.best_gradient)

    def halve_where_stuck(self, steps: int) -> None:
        """Halve the steps of pairs that rose too seldom or did not improve; they go back to their best."""
        seldom = self.rises < SUCCESS_SHARE * steps
        idle = ~self.halved & (self.best_at_checkpoint >= self.best_loss)
        stuck = seldom | idle
        self.size = torch.where(stuck, self.size / 2, self.size)
        wide = per_pair(stuck, self.points).bool()
        self.points = torch.where(wide, self.best_points, self.points)
        self.gradient = torch.where(wide, self.best_gradient, self.gradient)
        self.halved, self.best_at_checkpoint = stuck, self.best_loss
        self.rises = torch.zeros_like(self.rises)


def checkpoint_steps(steps: int) -> set[int]:
    """W of the paper: w_j = ceil(p_j N); p_0 = 0, p_1 = 0.22, each gap 0.03 less, but at least 0.06."""
    # In hundredths, exactly: 0.57 * 100 is more than 57 in floating point.
    found: set[int] = set()
    before, share = 0, 22
    while share <= 100:
        found.add(-(-share * steps // 100))
        before, share = share, share + max(share - before - 3, 6)
    return found
