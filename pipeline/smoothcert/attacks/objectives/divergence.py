"""Untargeted feature divergence: turn the feature away from the clean one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from smoothcert.attacks.objectives.base import PER_PAIR, Objective, check_threshold, cosine


@dataclass(frozen=True, slots=True)
class FeatureDivergence(Objective):
    """Minimise the cosine to a clean feature; success: it falls below ``threshold``.

    Attributes:
        reference: (B, d), the clean feature u(x), or m(x) when the angular certificate is audited.
        threshold: cosine below which the attack has succeeded.
    """

    name: ClassVar[str] = "divergence"
    flat_at_clean: ClassVar[bool] = True

    reference: torch.Tensor = field(metadata=PER_PAIR)
    threshold: float = 0.5

    def __post_init__(self) -> None:
        check_threshold(self.name, self.threshold)

    def loss(self, features: torch.Tensor) -> torch.Tensor:
        """Minus the cosine."""
        return -cosine(features, self.reference)

    def margin(self, features: torch.Tensor) -> torch.Tensor:
        """Cosine minus threshold."""
        return cosine(features, self.reference) - self.threshold
