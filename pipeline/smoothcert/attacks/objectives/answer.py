"""What a multimodal model says: another answer than its own, or a text of the attacker's choice.

The feature here is what the language model sees: the image tokens of one pass, flattened, or those of several noisy
passes one after another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F

from smoothcert.answerers.forced import ForcedTexts
from smoothcert.attacks.objectives.base import PER_PAIR, Objective

ForcedScores = Callable[[torch.Tensor, ForcedTexts], torch.Tensor]
"""Image tokens (B, T, d) and forced answers -> scores of words (B, L, words), differentiable."""


@dataclass(frozen=True, slots=True)
class AnswerObjective(Objective):
    """Leave an answer, or reach one: by the cross-entropy of its words, given those before.

    Greedy decoding says the answer exactly where each of its words scores highest, so the margin follows from one
    pass. Where a feature holds several passes, loss is their mean and the margin that of the middle one: below 0 where
    more than half of them succeed.

    Attributes:
        ids: int64 (B, L), prompts with the answers behind them.
        answer: bool (B, L), where the answers are.
        scores: what the language model thinks.
        shape: (T, d) of the image tokens of one pass.
        reach: the answer is to be reached, rather than left.
    """

    name: ClassVar[str] = "answer"

    ids: torch.Tensor = field(metadata=PER_PAIR)
    answer: torch.Tensor = field(metadata=PER_PAIR)
    scores: ForcedScores
    shape: tuple[int, int]
    reach: bool = False

    def loss(self, features: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of the answer's words; its negative where they are to be reached."""
        scores, wanted, counted, passes = self._forced(features)
        each = F.cross_entropy(scores.flatten(0, 1), wanted.flatten(), reduction="none").view(wanted.shape)
        mean = (each * counted).sum(1) / counted.sum(1)
        mean = mean.view(-1, passes).mean(1)
        return -mean if self.reach else mean

    def margin(self, features: torch.Tensor) -> torch.Tensor:
        """By how much the nearest word, or to be reached the farthest, keeps the answer from the goal; in scores."""
        scores, wanted, counted, passes = self._forced(features)
        own = scores.gather(2, wanted[..., None])[..., 0]
        others = scores.scatter(2, wanted[..., None], -torch.inf).amax(2)
        lead = own - others
        if self.reach:
            each = torch.where(counted, -lead, -torch.inf).amax(1)
        else:
            each = torch.where(counted, lead, torch.inf).amin(1)
        return each.view(-1, passes).sort(dim=1).values[:, passes // 2]

    def _forced(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
        """Scores (B n, L - 1, words), the words wanted there, where they count, and n, the passes of a feature."""
        passes = features.shape[1] // (self.shape[0] * self.shape[1])
        forced = ForcedTexts(self.ids, self.answer).repeated(passes)
        scores = self.scores(features.reshape(-1, *self.shape), forced)[:, :-1].float()
        return scores, forced.ids[:, 1:], forced.answer[:, 1:], passes
