"""Targeted feature matching: turn the feature towards another image's or caption's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from smoothcert.attacks.objectives.base import PER_PAIR, Objective, cosine


@dataclass(frozen=True, slots=True)
class FeatureMatching(Objective):
    """Maximise the cosine to a target; success: the target is nearer than the pair's own reference.

    Attributes:
        target: (B, d), feature of another image or caption.
        own: (B, d), feature of the pair's own caption, or its clean image feature where it has none. Compare
            like with like: an image target with an image's own feature, a caption target with the caption's.
        target_images: (B, 3, H, W), the images behind ``target`` where there are any; methods that match
            crops or patches need them.
    """

    name: ClassVar[str] = "matching"

    target: torch.Tensor = field(metadata=PER_PAIR)
    own: torch.Tensor = field(metadata=PER_PAIR)
    target_images: torch.Tensor | None = field(default=None, metadata=PER_PAIR)

    def loss(self, features: torch.Tensor) -> torch.Tensor:
        """Cosine to the target."""
        return cosine(features, self.target)

    def margin(self, features: torch.Tensor) -> torch.Tensor:
        """Cosine to the own reference minus cosine to the target."""
        return cosine(features, self.own) - cosine(features, self.target)
