"""Scores of a draw that are no projection on a fixed direction: votes, and the smallest margin over many rivals.

They are computed from the features of each step where these are, against all classes and the whole pool, and only the
scores are kept: one number a draw.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from smoothcert.engine.layout import CAPTION, Layout
from smoothcert.engine.question import Question
from smoothcert.engine.rivals import Rivals, gap_scale
from smoothcert.engine.texts import Texts

Array = NDArray[np.float64]


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
        self._class_rest = RestTracker(
            texts.class_features.shape, slots, "class_rest" in layout.others, device
        )
        self._pool_rest = RestTracker(
            texts.pool_features.shape, slots, "retrieval_rest" in layout.others, device
        )
        self._own = torch.zeros((slots, len(texts.pool_captions)), dtype=torch.bool, device=device)
        self._ranked = torch.zeros(slots, dtype=torch.bool, device=device)

    def start(self, slot: int, question: Question) -> None:
        """A new pair is in the slot."""
        if question.voted is not None:
            self._voted[slot] = question.voted
            # the own one is left out in ``of``
            scale = gap_scale(self._texts.class_features, question.voted)
            self._scale[slot] = torch.from_numpy(scale)
        self._class_rest.start(slot, question.classes)
        self._pool_rest.start(slot, question.pool)
        self._ranked[slot] = question.pool is not None
        self._own[slot] = False
        for index in question.own_captions:
            self._own[slot, index] = True

    def of(self, slots: Sequence[int], features: torch.Tensor, projections: torch.Tensor) -> torch.Tensor:
        """(s, chunk, k) scores in [0, 1] of the next draws of some slots, in the order of the layout's ``others``.

        The layout's order: margin and vote of the class, vote of the retrieval, then the rest of the rivals of each. A
        tie is no vote, and neither is what cannot be asked of a pair. NaN features give NaN margins and no votes.

        Args:
            slots: which slots.
            features: (s, chunk, d) float64 unit vectors.
            projections: (s, chunk, directions) of them.
        """
        rows = list(slots)
        found: list[torch.Tensor] = []
        rest: list[torch.Tensor] = []
        if "class_vote" in self._layout.others:
            products = features @ self._classes
            rest += self._class_rest.of(rows, features, products)
            place = self._voted[rows][:, None, None].expand(-1, features.shape[1], 1)
            gaps = (products.gather(2, place) - products) * self._scale[rows][:, None, :]
            margin = gaps.scatter(2, place, torch.inf).amin(dim=2)
            found += [((1.0 + margin) / 2.0).clamp(0.0, 1.0), (margin > 0.0).to(torch.float64)]
        if "retrieval_vote" in self._layout.others:
            own = projections[:, :, CAPTION : CAPTION + 1]
            products = features @ self._pool
            rest += self._pool_rest.of(rows, features, products)
            ahead = ~(products < own) & ~self._own[rows][:, None, :]
            kept = (ahead.sum(dim=2) < self._k) & self._ranked[rows][:, None]
            found.append(kept.to(torch.float64))
        if not found:
            return features.new_empty((*features.shape[:2], 0))
        return torch.stack(found + rest, dim=2)


class RestTracker:
    """The smallest margin of each slot's text over the rivals that have no direction of their own.

    Args:
        shape: (n, d) of the features of all texts.
        slots: number of slots.
        asked: whether the job has such rivals.
        device: where features of draws are.
    """

    def __init__(self, shape: tuple[int, ...], slots: int, asked: bool, device: torch.device) -> None:
        self._asked = asked
        n, d = shape if asked else (0, 0)
        self._own = torch.zeros((slots, d), dtype=torch.float64, device=device)
        self._scale = torch.zeros((slots, n), dtype=torch.float64, device=device)
        self._hidden = torch.zeros((slots, n), dtype=torch.float64, device=device)

    def start(self, slot: int, rivals: Rivals | None) -> None:
        """A new pair is in the slot; without such rivals its score is 1."""
        if not self._asked:
            return
        self._own[slot], self._scale[slot], self._hidden[slot] = 0.0, 0.0, torch.inf
        if rivals is not None:
            scale, hidden = rivals.rest_weights()
            self._own[slot] = torch.from_numpy(np.ascontiguousarray(rivals.own))
            self._scale[slot], self._hidden[slot] = torch.from_numpy(scale), torch.from_numpy(hidden)

    def of(self, rows: list[int], features: torch.Tensor, products: torch.Tensor) -> list[torch.Tensor]:
        """[(s, chunk) scores in [0, 1]], or [] where the job has no such rivals.

        Args:
            rows: which slots.
            features: (s, chunk, d) of the draws.
            products: (s, chunk, n) of them and the texts.
        """
        if not self._asked:
            return []
        own = torch.bmm(features, self._own[rows][:, :, None])
        margins = (own - products).mul_(self._scale[rows][:, None]).add_(self._hidden[rows][:, None])
        return [((1.0 + margins.amin(dim=2)) / 2.0).clamp_(0.0, 1.0)]
