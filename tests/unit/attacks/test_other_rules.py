"""Shares of votes and percentiles under attack, against distributions that are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, binom

from smoothcert.attacks.other_rules import judge_by_rules
from smoothcert.attacks.textual import PairTexts

DIM = 6
BASIS = np.eye(DIM)
AHEAD = 0.8 * BASIS[0] + 0.5 * BASIS[1] + 0.33 * BASIS[2]
TEXTS = PairTexts(classes=BASIS[:4], caption=BASIS[1], others=BASIS[[0, 2, 3]], k=1, percentile=0.4)


def draws(count: int, seed: int, spread: float = 0.4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noisy = AHEAD / np.linalg.norm(AHEAD) + spread * rng.standard_normal((count, DIM))
    return np.asarray(noisy / np.linalg.norm(noisy, axis=1, keepdims=True), dtype=np.float32)


def by_hand(features: np.ndarray, q: float) -> dict[str, float]:
    """Each number from the coordinates: classes and captions are axes."""
    u = features.astype(np.float64)
    margins = (u[:, :1] - u[:, 1:4]).min(axis=1) / np.sqrt(2)
    ranks = u[:, [0, 2, 3]].max(axis=1) < u[:, 1]
    clean = u[:, 0]
    place = int(np.ceil(q * len(features))) - 1
    return {
        "vote_share": float(np.mean(margins > 0)),
        "retrieval_vote_share": float(np.mean(ranks)),
        "clean_percentile": float(np.sort(clean)[place]),
        "caption_percentile": float(np.sort(features[:, 1].astype(np.float64))[place]),
        "class_percentile": float(np.sort(margins)[place]),
    }


def test_estimates_are_those_by_hand_and_bounds_exact_binomial_ones() -> None:
    features = draws(500, 1)
    score = judge_by_rules(features, draws(500, 2), 3.0 * BASIS[0], TEXTS, 0.001)
    assert (score.attacked_vote, score.voted) == (0, 0)
    for name, value in by_hand(features, 0.4).items():
        found = getattr(score, name)
        assert found.value == pytest.approx(value, abs=1e-6) and found.upper > found.value
    votes = score.vote_share.value * 500
    assert score.vote_share.upper == pytest.approx(beta.ppf(0.999, votes + 1, 500 - votes), abs=1e-5)
    # the smallest k for which at most k draws lie below the quantile with probability 0.999: the next one is the bound
    rank = int(np.argmax(binom.cdf(np.arange(500), 500, 0.4) >= 0.999))
    ordered = np.sort(features[:, 1].astype(np.float64))
    assert score.caption_percentile.upper == pytest.approx(ordered[rank], abs=1e-5)


def test_bounds_fail_as_seldom_as_they_promise() -> None:
    """80 repetitions at 5%: more than 14 misses of one number have probability below 1e-5."""
    truth = by_hand(draws(400_000, 99), 0.4)
    misses = dict.fromkeys(truth, 0)
    for seed in range(80):
        score = judge_by_rules(draws(200, seed), draws(64, 1000 + seed), BASIS[0], TEXTS, 0.05)
        for name, value in truth.items():
            misses[name] += getattr(score, name).upper < value - 5e-3
    assert max(misses.values()) <= 14


def test_the_vote_is_judged_about_the_class_that_is_certified() -> None:
    behind = PairTexts(classes=BASIS[:4], voted=2, percentile=0.5)
    score = judge_by_rules(draws(300, 0), draws(300, 1), BASIS[0], behind, 0.001)
    assert (score.attacked_vote, score.voted) == (0, 2)
    assert score.vote_share.upper < 0.5 and score.class_percentile.upper < 0
    assert score.retrieval_vote_share is score.caption_percentile is None


def test_ties_are_no_votes_and_without_noise_everything_is_exact() -> None:
    tied = ((BASIS[0] + BASIS[1]) / np.sqrt(2)).astype(np.float32)[None]
    score = judge_by_rules(tied, tied, BASIS[0], PairTexts(classes=BASIS[:3], percentile=0.5), 0.001)
    assert score.vote_share.value == score.vote_share.upper == 0.0
    assert score.class_percentile.value == score.class_percentile.upper == 0.0
    assert score.clean_percentile.value == pytest.approx(1 / np.sqrt(2), abs=1e-6)
    alone = judge_by_rules(tied, tied, BASIS[0], PairTexts(), 0.001)
    assert alone.vote_share is alone.clean_percentile is alone.attacked_vote is None


def test_too_few_draws_exclude_nothing() -> None:
    score = judge_by_rules(draws(8, 0), draws(8, 1), BASIS[0], TEXTS, 1e-6)
    assert score.clean_percentile.upper == score.class_percentile.upper == 1.0
