"""Caption-similarity suppression: turn the feature away from the pair's own caption."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from smoothcert.attacks.objectives.base import PER_PAIR, Objective, check_threshold, cosine


@dataclass(frozen=True, slots=True)
class CaptionSuppression(Objective):
    """Minimise the similarity with the own caption; success: it falls below ``threshold``.

    Attributes:
        caption: (B, d), feature of the pair's own caption.
        threshold: similarity below which the attack has succeeded.
    """

    name: ClassVar[str] = "caption"

    caption: torch.Tensor = field(metadata=PER_PAIR)
    threshold: float = 0.0

    def __post_init__(self) -> None:
        check_threshold(self.name, self.threshold)

    def loss(self, features: torch.Tensor) -> torch.Tensor:
        """Minus the similarity."""
        return -cosine(features, self.caption)

    def margin(self, features: torch.Tensor) -> torch.Tensor:
        """Similarity minus threshold."""
        return cosine(features, self.caption) - self.threshold
