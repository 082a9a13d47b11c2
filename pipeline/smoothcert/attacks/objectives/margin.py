"""Any objective, searched by its margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch

from smoothcert.attacks.objectives.base import Objective


@dataclass(frozen=True, slots=True)
class MarginLoss(Objective):
    """The same goal, whose loss is minus its margin: zero where success begins.

    Methods that step to the edge of success (FAB, C&W) need it; losses like CE do not say where the edge is.

    Attributes:
        goal: the objective.
    """

    name: ClassVar[str] = "margin"

    goal: Objective

    def loss(self, features: torch.Tensor) -> torch.Tensor:
        """Minus the goal's margin."""
        return -self.goal.margin(features)

    def margin(self, features: torch.Tensor) -> torch.Tensor:
        """The goal's margin."""
        return self.goal.margin(features)

    def select(self, rows: torch.Tensor) -> Self:
        """The objective of some pairs."""
        return type(self)(self.goal.select(rows))

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.goal)
