"""What certificates about texts bound, seen under attack: class, caption similarity, retrieval rank.

Each quantity is a mean of inner products of single draws with a fixed direction, or the smallest of several; its upper
confidence bound rests on draws that did not choose the direction. An upper bound below what is certified disproves the
certificate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smoothcert.attacks.cosines import mean_below, split

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class UpperBounded:
    """An estimate and its upper confidence bound; equal where there is no noise."""

    value: float
    upper: float


@dataclass(frozen=True, slots=True)
class TextualScore:
    """One outcome against the pair's texts; None where there is nothing to compare with.

    Attributes:
        clean_label: class number of the mean feature of the clean image.
        attacked_label: class number of the mean feature under attack.
        margin_label: class number that ``class_margin`` is about.
        class_margin: smallest inner product of the mean feature with the unit vectors from a rival's text feature to
            that class's; negative: another class wins.
        caption_similarity: inner product of the mean feature with the caption's.
        retrieval_margin: the same margin of the own caption against the k-th nearest other one; negative: the own
            caption is not among the first k.
    """

    clean_label: int | None = None
    attacked_label: int | None = None
    margin_label: int | None = None
    class_margin: UpperBounded | None = None
    caption_similarity: UpperBounded | None = None
    retrieval_margin: UpperBounded | None = None


@dataclass(frozen=True, slots=True)
class PairTexts:
    """The texts of one pair.

    Attributes:
        classes: (C, d) unit vectors, or None.
        label: class number that a certificate is about; None takes the one predicted without attack.
        voted: class number that a certificate of the vote is about; None takes the one voted for without attack.
        caption: (d,) unit vector of the own captions, or None.
        others: (M, d) unit vectors of the other candidates, or None.
        k: the rank that retrieval certifies.
        percentile: which percentile of scores is asked about; None for none.
    """

    classes: Array | None = None
    label: int | None = None
    voted: int | None = None
    caption: Array | None = None
    others: Array | None = None
    k: int = 1
    percentile: float | None = None


@dataclass(frozen=True, slots=True)
class TextReferences:
    """The texts of a batch of pairs; empty where there are none.

    Attributes:
        classes: (C, d) unit vectors, or None.
        labels: for each pair as ``PairTexts.label``; empty for none.
        voted: for each pair as ``PairTexts.voted``; empty for none.
        captions: for each pair (d,) or None; empty for none.
        pool: (M, d) unit vectors of the candidates, or None.
        own: for each pair (M,) bool, the candidates that are its own.
        k: the rank that retrieval certifies.
        percentile: which percentile of scores is asked about; None for none.
    """

    classes: Array | None = None
    labels: tuple[int | None, ...] = ()
    voted: tuple[int | None, ...] = ()
    captions: tuple[Array | None, ...] = ()
    pool: Array | None = None
    own: tuple[NDArray[np.bool_], ...] = ()
    k: int = 1
    percentile: float | None = None

    def of(self, row: int) -> PairTexts:
        """The texts of one pair."""
        return PairTexts(
            self.classes,
            self.labels[row] if self.labels else None,
            self.voted[row] if self.voted else None,
            self.captions[row] if self.captions else None,
            None if self.pool is None else self.pool[~self.own[row]],
            self.k,
            self.percentile,
        )


def compare_with_texts(
    attacked: NDArray[np.float32], clean: NDArray[np.float32], texts: PairTexts, alpha: float
) -> TextualScore:
    """Compare draws with a pair's texts.

    Args:
        attacked: (n, d) unit draws under attack; n is 1 where there is no noise.
        clean: (m, d) unit draws of the clean image, independent of them.
        texts: the pair's.
        alpha: failure probability of each bound.
    """
    draws = attacked.astype(np.float64)
    mean = draws.mean(axis=0)
    clean_label = attacked_label = label = None
    margin = similarity = retrieval = None
    if texts.classes is not None:
        clean_label = int(np.argmax(texts.classes @ clean.mean(axis=0, dtype=np.float64)))
        attacked_label = int(np.argmax(texts.classes @ mean))
        label = clean_label if texts.label is None else texts.label
        margin = _margin(draws, texts.classes[label], np.delete(texts.classes, label, axis=0), 1, alpha)
    if texts.caption is not None and np.isfinite(texts.caption).all():
        similarity = _inner(draws, split(draws)[1], texts.caption, alpha)
        if texts.others is not None and len(texts.others) >= texts.k:
            retrieval = _margin(draws, texts.caption, texts.others, texts.k, alpha)
    return TextualScore(clean_label, attacked_label, label, margin, similarity, retrieval)


def _margin(draws: Array, own: Array, rivals: Array, k: int, alpha: float) -> UpperBounded:
    """Margin against the k-th nearest rival: the largest over any k rivals bounds it from above."""
    gaps = own - rivals
    lengths = np.linalg.norm(gaps, axis=1, keepdims=True)
    units = gaps / np.maximum(lengths, 1e-12)
    value = float(np.sort(units @ draws.mean(axis=0))[k - 1])
    if len(draws) == 1:
        return UpperBounded(value, value)
    pilot, rest = split(draws)
    nearest = np.argsort(units @ (pilot if len(pilot) else rest).mean(axis=0), kind="stable")[:k]
    uppers = [_inner(draws, rest, units[rival], alpha / k).upper for rival in nearest]
    return UpperBounded(value, max(uppers))


def _inner(draws: Array, rest: Array, direction: Array, alpha: float) -> UpperBounded:
    value = float(draws.mean(axis=0) @ direction)
    if len(draws) == 1:
        return UpperBounded(value, value)
    return UpperBounded(value, -mean_below(-(rest @ direction), alpha))
