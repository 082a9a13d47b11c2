"""Answers that a model is held to: prompts with the answers behind them, so that one pass scores every word of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class ForcedTexts:
    """Prompts and answers of B questions, padded behind.

    Attributes:
        ids: int64 (B, L).
        answer: bool (B, L), where the answer is.
    """

    ids: torch.Tensor
    answer: torch.Tensor

    @classmethod
    def of(
        cls, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], device: torch.device
    ) -> ForcedTexts:
        """Join token ids; an answer has at least one."""
        rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
        longest = max(map(len, rows), default=0)
        ids = [row + [0] * (longest - len(row)) for row in rows]
        answer = [
            [len(prompt) <= place < len(row) for place in range(longest)]
            for prompt, row in zip(prompts, rows, strict=True)
        ]
        return cls(torch.tensor(ids, device=device), torch.tensor(answer, device=device))

    def repeated(self, times: int) -> ForcedTexts:
        """Each row so many times in a row."""
        return ForcedTexts(self.ids.repeat_interleave(times, 0), self.answer.repeat_interleave(times, 0))
