"""Retrieval displacement: push the true caption down in the ranking of a pool."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F

from smoothcert.attacks.objectives.base import PER_PAIR, Objective, cosine
from smoothcert.errors import JobError


@dataclass(frozen=True, slots=True)
class RetrievalDisplacement(Objective):
    """Make at least ``k`` other captions nearer than the true one; success: its rank is worse than ``k``.

    Attributes:
        pool: (M, d), features of the candidate captions.
        caption: (B, d), feature of the true caption.
        rivals: bool (B, M), which candidates count as other captions (not the pair's own, nor its
            duplicates).
        k: the rank that must be lost.
    """

    name: ClassVar[str] = "retrieval"

    pool: torch.Tensor
    caption: torch.Tensor = field(metadata=PER_PAIR)
    rivals: torch.Tensor = field(metadata=PER_PAIR)
    k: int = 1

    def __post_init__(self) -> None:
        if self.k < 1:
            raise JobError(f"objective '{self.name}': k={self.k} is not a rank", remedy="use 1 or more")
        fewest = int(self.rivals.sum(dim=1).min()) if len(self.rivals) else self.k
        if fewest < self.k:
            raise JobError(
                f"objective '{self.name}': a pair has {fewest} other captions in the pool, too few to "
                f"lose rank k={self.k}",
                remedy="raise retrieval.candidates or lower retrieval.k",
            )

    def rank(self, features: torch.Tensor) -> torch.Tensor:
        """Rank of the true caption, 1 is best: (B,)."""
        own, others = self._similarities(features)
        return 1 + (others > own[:, None]).sum(dim=1)

    def loss(self, features: torch.Tensor) -> torch.Tensor:
        """Minus the margin."""
        return -self.margin(features)

    def margin(self, features: torch.Tensor) -> torch.Tensor:
        """Similarity of the true caption minus that of the k-th nearest other one."""
        own, others = self._similarities(features)
        return own - others.topk(self.k, dim=1).values[:, -1]

    def _similarities(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        others = F.normalize(features, dim=-1) @ F.normalize(self.pool, dim=-1).T
        return cosine(features, self.caption), others.masked_fill(~self.rivals, -torch.inf)
