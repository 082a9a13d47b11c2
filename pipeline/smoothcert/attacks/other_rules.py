"""The vote and percentiles of scores, seen under attack: what they decide on fresh draws (docs/theory.md T9).

A share of votes and a percentile are about single draws, not about their mean: upper confidence bounds are exact
binomial ones of a number of draws that was fixed beforehand. One below what is certified disproves the certificate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smoothcert.attacks.cosines import ROUNDING
from smoothcert.attacks.textual import PairTexts, UpperBounded
from smoothcert.statistics import lower_bound, percentile_bound

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RuleScore:
    """One outcome by the vote and by percentiles; None where there is nothing to compare with.

    Attributes:
        attacked_vote: class number that most draws under attack vote for.
        voted: class number that ``vote_share`` and ``class_percentile`` are about.
        vote_share: probability that a draw under attack is nearer to that class's text than to any other.
        retrieval_vote_share: probability that the own caption is among the first k of the pool for a draw.
        clean_percentile: percentile of a draw's cosine to the clean feature.
        caption_percentile: percentile of a draw's inner product with the caption's feature.
        class_percentile: percentile of a draw's smallest margin of the voted class.
    """

    attacked_vote: int | None = None
    voted: int | None = None
    vote_share: UpperBounded | None = None
    retrieval_vote_share: UpperBounded | None = None
    clean_percentile: UpperBounded | None = None
    caption_percentile: UpperBounded | None = None
    class_percentile: UpperBounded | None = None


def judge_by_rules(
    attacked: NDArray[np.float32],
    clean: NDArray[np.float32],
    reference: Array,
    texts: PairTexts,
    alpha: float,
) -> RuleScore:
    """Decide by votes and percentiles.

    Args:
        attacked: (n, d) unit draws under attack; n is 1 where there is no noise.
        clean: (m, d) unit draws of the clean image, independent of them.
        reference: (d,) the clean feature.
        texts: the pair's, and the percentile.
        alpha: failure probability of each bound.
    """
    draws = attacked.astype(np.float64)
    attacked_vote = voted = None
    vote_share = rank_share = class_percentile = None
    if texts.classes is not None:
        winners = np.argmax(draws @ texts.classes.T, axis=1)
        attacked_vote = _most(winners, len(texts.classes))
        voted = texts.voted
        if voted is None:
            before = np.argmax(clean.astype(np.float64) @ texts.classes.T, axis=1)
            voted = _most(before, len(texts.classes))
        margins = _margins(draws, texts.classes, voted)
        vote_share = _share(margins > 0.0, alpha)
        class_percentile = _percentile(margins, texts.percentile, alpha)
    caption_percentile = None
    if texts.caption is not None and np.isfinite(texts.caption).all():
        own = draws @ texts.caption
        caption_percentile = _percentile(own, texts.percentile, alpha)
        if texts.others is not None:
            ahead = np.sum(draws @ texts.others.T >= own[:, None], axis=1)
            rank_share = _share(ahead < texts.k, alpha)
    to_clean = draws @ (reference / np.linalg.norm(reference))
    return RuleScore(
        attacked_vote=attacked_vote,
        voted=voted,
        vote_share=vote_share,
        retrieval_vote_share=rank_share,
        clean_percentile=_percentile(to_clean, texts.percentile, alpha),
        caption_percentile=caption_percentile,
        class_percentile=class_percentile,
    )


def _margins(draws: Array, classes: Array, own: int) -> Array:
    """(n,) smallest inner product with the unit vectors from another class's text feature to the own one's."""
    gaps = classes[own] - np.delete(classes, own, axis=0)
    gaps /= np.maximum(np.linalg.norm(gaps, axis=1, keepdims=True), 1e-12)
    return np.asarray(np.min(draws @ gaps.T, axis=1))


def _most(winners: NDArray[np.int64], classes: int) -> int:
    return int(np.argmax(np.bincount(winners, minlength=classes)))


def _share(votes: NDArray[np.bool_], alpha: float) -> UpperBounded:
    share = float(np.mean(votes))
    if len(votes) == 1:
        return UpperBounded(share, share)
    against = float(lower_bound(1.0 - votes.astype(np.float64), alpha, "clopper_pearson"))
    return UpperBounded(share, min(1.0, 1.0 - against + ROUNDING))


def _percentile(scores: Array, percentile: float | None, alpha: float) -> UpperBounded | None:
    """The q-quantile inf{y: P(score <= y) >= q}, and an upper bound by order statistics from the other side."""
    if percentile is None:
        return None
    rank = int(np.ceil(percentile * len(scores) * (1.0 - 1e-12)))
    value = float(np.sort(scores)[max(rank, 1) - 1])
    if len(scores) == 1:
        return UpperBounded(value, value)
    below = float(percentile_bound(-scores, 0.0, 1.0, alpha, percentile=1.0 - percentile)[0])
    # too few draws: no score is larger than 1
    return UpperBounded(value, 1.0 if np.isnan(below) else min(1.0, -below + ROUNDING))
