"""Scores of a draw that are no projection on a fixed direction: the margin of a class over all others, and votes.

They are computed from the features of each step where these are, against all classes and the whole pool, and only the
scores are kept: one number a draw.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from smoothcert.engine.layout import CAPTION, Layout
from smoothcert.engine.question import Question
from smoothcert.engine.texts import Texts


class DrawScores:
    """What the slots of a lane are asked besides projections.

    Args:
        layout: which scores there are.
        texts: classes and pool.
        slots: number of slots.
        device: where features are.
    """

    def __init__(self, layout: Layout, texts: Texts, slots: int, device: torch.device) -> None:
        self._layout = layout
        self._k = texts.retrieval_k
        self._classes, self._pool = (
            torch.from_numpy(np.ascontiguousarray(features.T)).to(device)
            for features in (texts.class_features, texts.pool_features)
        )
        self._texts = texts
        self._voted = torch.zeros(slots, dtype=torch.int64, device=device)
        self._scale = torch.ones((slots, len(texts.labels)), dtype=torch.float64, device=device)
        self._own = torch.zeros((slots, len(texts.pool_captions)), dtype=torch.bool, device=device)
        self._ranked = torch.zeros(slots, dtype=torch.bool, device=device)

    def start(self, slot: int, question: Question) -> None:
        """A new pair is in the slot."""
        if question.voted is not None:
            features = self._texts.class_features
            distance = np.linalg.norm(features - features[question.voted], axis=1)
            distance[question.voted] = 1.0
            self._voted[slot] = question.voted
            self._scale[slot] = torch.from_numpy(1.0 / distance)
        self._ranked[slot] = question.pool is not None
        self._own[slot] = False
        for index in question.own_captions:
            self._own[slot, index] = True

    def of(self, slots: Sequence[int], features: torch.Tensor, projections: torch.Tensor) -> torch.Tensor:
        """(s, chunk, k) scores in [0, 1] of the next draws of some slots, in the order of the layout's ``others``.

        A tie is no vote, and neither is what cannot be asked of a pair. NaN features give NaN margins and no votes.

        Args:
            slots: which slots.
            features: (s, chunk, d) float64 unit vectors.
            projections: (s, chunk, directions) of them.
        """
        rows = list(slots)
        found: list[torch.Tensor] = []
        if "class_vote" in self._layout.others:
            products = features @ self._classes
            place = self._voted[rows][:, None, None].expand(-1, features.shape[1], 1)
            gaps = (products.gather(2, place) - products) * self._scale[rows][:, None, :]
            margin = gaps.scatter(2, place, torch.inf).amin(dim=2)
            found += [((1.0 + margin) / 2.0).clamp(0.0, 1.0), (margin > 0.0).to(torch.float64)]
        if "retrieval_vote" in self._layout.others:
            own = projections[:, :, CAPTION : CAPTION + 1]
            ahead = ~(features @ self._pool < own) & ~self._own[rows][:, None, :]
            kept = (ahead.sum(dim=2) < self._k) & self._ranked[rows][:, None]
            found.append(kept.to(torch.float64))
        if not found:
            return features.new_empty((*features.shape[:2], 0))
        return torch.stack(found, dim=2)
