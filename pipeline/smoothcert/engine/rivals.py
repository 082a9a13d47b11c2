"""Competitors of one text: those with a direction of their own, and the rest, of which the smallest margin counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_CLOSE = 1e-3
"""Distance of text features below which 2 - 2 cos loses more than its square to rounding."""


@dataclass(frozen=True)
class Rivals:
    """Competitors of one chosen text: the nearest have directions, of the rest the smallest margin counts.

    Attributes:
        own: (d,) unit feature of the text.
        distance: (C,) of all texts from it.
        excluded: indices into the classes or the pool that are no competitors.
        measured: indices of those with directions.
        directions: (len(measured), d) unit vectors w = (t_c - t_y)/|t_c - t_y|.
        alignment: (len(measured),) inner products of the pilot direction with w.
        others_alignment: the largest such product over the rest (a larger one is easier to attack); None without a
            rest.
        rest_pilot: (n0,) scores in [0, 1] of the pilot draws: their smallest margins over the rest; None without one.
    """

    own: Array
    distance: Array
    excluded: frozenset[int]
    measured: NDArray[np.int64]
    directions: Array
    alignment: Array
    others_alignment: float | None
    rest_pilot: Array | None = None

    def rest_weights(self) -> tuple[Array, Array]:
        """What makes margins over the rest of products with all texts.

        Returns:
            (scale, hidden), (C,) each: <u, own - t_c> scale_c + hidden_c is the margin over c, and infinite where c is
            none of the rest. Scales are rounded down, so that -w is at most a unit vector, and a margin that is bounded
            above 0 is at least the bound.
        """
        hidden = np.zeros(len(self.distance))
        hidden[self.measured] = np.inf
        hidden[list(self.excluded)] = np.inf
        length = self.distance
        # an equal feature has no margin at all
        scale = np.divide(1.0 - 1e-9, length, out=np.zeros_like(length), where=length >= 1e-9)
        return scale, hidden

    def with_pilot(
        self, near: NDArray[np.int64], products: NDArray[np.floating[Any]], own: NDArray[np.floating[Any]]
    ) -> Rivals:
        """The same with ``rest_pilot``, if there is a rest.

        Args:
            near: (k,) indices of the texts that are looked at; the others are taken for far away.
            products: (n0, k) of the pilot draws with them; float32 will do.
            own: (n0,) of the pilot draws with the own one.
        """
        if self.others_alignment is None:
            return self
        scale, hidden = (weights[near].astype(products.dtype) for weights in self.rest_weights())
        margins = own[:, None] - products
        margins *= scale
        margins += hidden
        margins = margins.min(axis=1)
        return replace(self, rest_pilot=np.clip((1.0 + margins.astype(np.float64)) / 2.0, 0.0, 1.0))


def distances(features: Array, own: Array) -> Array:
    """(C,) distances of unit features (C, d) from one of them, without forming differences but of the close."""
    length = np.sqrt(np.maximum(2.0 - 2.0 * (features @ own), 0.0))
    close = np.flatnonzero(length < _CLOSE)
    length[close] = np.linalg.norm(features[close] - own, axis=1)
    return length


def gap_scale(features: Array, own: int) -> Array:
    """(C,) one over the distances of unit features (C, d) from that with index ``own``; 0 for equal ones.

    Over an equal class there is no margin, and no vote.
    """
    distance = np.linalg.norm(features - features[own], axis=1)
    return np.asarray(np.divide(1.0, distance, out=np.zeros_like(distance), where=distance >= 1e-9))


def nearest_rivals(
    features: Array,
    own: Array,
    pilot: Array,
    along: Array,
    count: int,
    excluded: set[int],
    length: Array | None = None,
) -> Rivals:
    """The ``count`` rivals with the smallest margin on the pilot direction, and the worst of the rest.

    Args:
        features: (C, d) unit features of all texts.
        own: (d,) that of the chosen text.
        pilot: (d,) the pilot direction.
        along: (C,) products of it with all texts.
        count: how many get a direction.
        excluded: indices of texts that are no competitors.
        length: (C,) ``distances`` of all texts from the chosen one, if they are known.
    """
    # <v, t_c - t_y>/|t_c - t_y| for all rivals without forming the differences; |t_c - t_y|^2 = 2 - 2 <t_c, t_y>
    length = distances(features, own) if length is None else length
    gap = along - own @ pilot
    # rivals too close for this arithmetic count as the worst there are: they come first, and are measured exactly
    close = length < _CLOSE
    alignment = np.where(close, 1.0, gap / np.where(close, 1.0, length))
    candidates = np.delete(np.arange(len(features)), list(excluded))
    order = candidates[np.argsort(-alignment[candidates], kind="stable")]
    measured, others = order[:count], order[count:]
    # rounded up: of a rival that is not measured, a larger alignment is the safe side
    worst = min(1.0, float(alignment[others].max()) + _CLOSE**2) if len(others) else None
    away = features[measured] - own
    distance = np.linalg.norm(away, axis=1)
    same = distance < 1e-9
    away /= np.where(same, np.inf, distance)[:, None]
    # an equal feature can never be kept apart: the direction of the pilot itself certifies nothing
    exact = np.where(same, 1.0, away @ pilot)
    return Rivals(own, length, frozenset(excluded), measured, away, exact, worst)
