"""Second moments of the draws of all slots, for the certificate from the spread of the features (docs/theory.md T7).

One d x d matrix a slot, about the mean of its pilot draws, of the draws that fall into a ball which the pilot fixed;
the others are only counted. Memory does not grow with the draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from smoothcert.statistics import fix_ball, largest_eigenvalue

LARGEST_DIMENSION = 2048
"""Features of more numbers have no second moment measured: 32 MB a slot is what this one takes."""


@dataclass(frozen=True, slots=True)
class SecondMoment:
    """What the draws of one pair show of their spread.

    Attributes:
        eigenvalue: largest eigenvalue of the mean of (u-a)(u-a)' 1_G over all draws, rounded up.
        squared_radius: of the ball G about a, both fixed on the pilot draws.
        inside: (n,) whether each draw is in it.
    """

    eigenvalue: float
    squared_radius: float
    inside: NDArray[np.bool_]


class MomentTracker:
    """Second moments of all slots of a lane.

    Args:
        slots: number of slots.
        dimension: of features; 0, or more than ``LARGEST_DIMENSION``: nothing is measured.
        device: where features are.
    """

    def __init__(self, slots: int, dimension: int, device: torch.device) -> None:
        self.measures = 0 < dimension <= LARGEST_DIMENSION
        size = dimension if self.measures else 0
        self._sums = torch.zeros((slots, size, size), dtype=torch.float64, device=device)
        self._centre = torch.zeros((slots, size), dtype=torch.float64, device=device)
        self._squared = torch.zeros(slots, dtype=torch.float64, device=device)
        self._inside: list[list[NDArray[np.bool_]]] = [[] for _ in range(slots)]

    def start(self, slot: int, pilot: NDArray[np.float64]) -> None:
        """A new pair is in the slot, with the unit features (n0, d) of its pilot draws."""
        if not self.measures:
            return
        centre, squared = fix_ball(pilot)
        self._sums[slot] = 0.0
        self._centre[slot] = torch.from_numpy(centre)
        self._squared[slot] = float(squared)
        self._inside[slot] = []

    def update(self, slots: Sequence[int], features: torch.Tensor, counts: NDArray[np.int64]) -> None:
        """Add the next draws of some slots.

        Args:
            slots: which slots, each at most once.
            features: (len(slots), chunk, d) unit features, float64.
            counts: how many of the chunk's draws count, per slot.
        """
        if not self.measures:
            return
        rows = list(slots)
        away = features - self._centre[rows][:, None]
        # NaN is not inside, and the pair fails for its scores
        inside = torch.linalg.vector_norm(away, dim=2).square() <= self._squared[rows][:, None]
        used = (
            torch.arange(features.shape[1], device=features.device)
            < torch.from_numpy(counts).to(features.device)[:, None]
        )
        kept = torch.where((inside & used)[..., None], away, 0.0)
        for position, slot in enumerate(rows):
            self._sums[slot].addmm_(kept[position].T, kept[position])
        for slot, each, count in zip(rows, inside.cpu().numpy(), counts, strict=True):
            self._inside[slot].append(each[:count])

    def result(self, slot: int) -> SecondMoment | None:
        """What the draws of the slot's pair showed; None where nothing is measured."""
        if not self.measures:
            return None
        inside = np.concatenate(self._inside[slot])
        mean = self._sums[slot].cpu().numpy() / len(inside)
        return SecondMoment(float(largest_eigenvalue(mean)), float(self._squared[slot]), inside)
