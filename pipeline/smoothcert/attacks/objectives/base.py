"""What an attack wants: a loss to raise, and a margin that says whether it got there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F

from smoothcert.errors import JobError

PER_PAIR: dict[str, Any] = {"per_pair": True}
"""Metadata of fields that hold one row a pair."""


@dataclass(frozen=True, slots=True)
class Objective(ABC):
    """One goal for a batch of pairs, as functions of the subject's features (B, d).

    Features are compared by direction only: a smoothed feature's norm changes neither loss nor success.
    Success is margin < 0, strictly; NaN is never success.

    Class attributes:
        name: how results call it.
        flat_at_clean: the loss has no gradient at the clean image (a random start is needed).
    """

    name: ClassVar[str]
    flat_at_clean: ClassVar[bool] = False

    @abstractmethod
    def loss(self, features: torch.Tensor) -> torch.Tensor:
        """What attacks raise: (B, d) -> (B,), differentiable."""

    @abstractmethod
    def margin(self, features: torch.Tensor) -> torch.Tensor:
        """Distance to success, in units of cosine: (B, d) -> (B,), differentiable; negative once reached."""

    def success(self, features: torch.Tensor) -> torch.Tensor:
        """Whether each pair's goal is reached: (B, d) -> (B,) bool."""
        return self.margin(features) < 0

    def select(self, rows: torch.Tensor) -> Self:
        """The objective of some pairs."""
        chosen = {
            field.name: getattr(self, field.name)[rows]
            for field in fields(self)
            if field.metadata.get("per_pair") and getattr(self, field.name) is not None
        }
        return replace(self, **chosen)

    def __len__(self) -> int:
        """Number of pairs."""
        for field in fields(self):
            if field.metadata.get("per_pair") and getattr(self, field.name) is not None:
                return len(getattr(self, field.name))
        raise AssertionError(f"{type(self).__name__} has no per-pair field")


def cosine(features: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """Cosines between rows: (B, d), (B, d) -> (B,)."""
    return (F.normalize(features, dim=-1) * F.normalize(references, dim=-1)).sum(-1)


def need(objective: str, field: str, value: torch.Tensor | None, remedy: str) -> torch.Tensor:
    """``value``, or a ``JobError`` that says what the objective lacks."""
    if value is None:
        raise JobError(f"objective '{objective}' needs {field}, which this source lacks", remedy=remedy)
    return value


def check_threshold(objective: str, threshold: float) -> None:
    """Raise ``JobError`` unless a cosine threshold is in [-1, 1]."""
    if not -1 <= threshold <= 1:
        raise JobError(
            f"objective '{objective}': threshold={threshold} is not a valid cosine",
            remedy="use -1 to 1, e.g. 0.5",
        )
