"""What certificates about texts bound, against means that are known."""

from __future__ import annotations

import numpy as np
import pytest

from smoothcert.attacks.textual import PairTexts, TextReferences, compare_with_texts

DIM = 6
BASIS = np.eye(DIM)


def draws(middle: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Unit vectors whose mean is along ``middle`` in all but isotropic directions."""
    rng = np.random.default_rng(seed)
    noisy = middle / np.linalg.norm(middle) + 0.15 * rng.standard_normal((count, DIM))
    return np.asarray(noisy / np.linalg.norm(noisy, axis=1, keepdims=True), dtype=np.float32)


def mean(middle: np.ndarray) -> np.ndarray:
    return draws(middle, 200_000, 99).mean(axis=0, dtype=np.float64)


AHEAD = 0.8 * BASIS[0] + 0.5 * BASIS[1] + 0.33 * BASIS[2]


def test_bounds_fail_as_seldom_as_they_promise_and_are_near() -> None:
    truth = mean(AHEAD)
    texts = PairTexts(classes=BASIS[:4], caption=BASIS[1], others=BASIS[[0, 2, 3]], k=2)
    wanted = np.array([(truth[0] - truth[1]) / np.sqrt(2), truth[1], (truth[1] - truth[2]) / np.sqrt(2)])
    misses, slack = np.zeros(3), []
    for seed in range(80):
        score = compare_with_texts(draws(AHEAD, 300, seed), draws(AHEAD, 300, 1000 + seed), texts, 0.05)
        assert (score.clean_label, score.attacked_label, score.margin_label) == (0, 0, 0)
        found = [score.class_margin, score.caption_similarity, score.retrieval_margin]
        uppers = np.array([each.upper for each in found if each is not None])
        misses += uppers < wanted - 1e-4
        slack.append(uppers - wanted)
        np.testing.assert_allclose([each.value for each in found if each], wanted, atol=0.05)
    # more than 14 of 80 at 5% each: probability below 1e-5
    assert misses.max() <= 14
    assert np.mean(slack, axis=0).max() < 0.05


def test_a_class_is_judged_about_the_one_that_is_certified() -> None:
    behind = PairTexts(classes=BASIS[:4], label=2)
    score = compare_with_texts(draws(AHEAD, 300, 0), draws(AHEAD, 300, 1), behind, 0.001)
    assert (score.clean_label, score.margin_label) == (0, 2)
    assert score.class_margin is not None and score.class_margin.upper < 0
    assert score.caption_similarity is None and score.retrieval_margin is None


def test_a_rank_is_lost_only_when_enough_rivals_are_ahead() -> None:
    # own caption third of four: the first two ranks are lost, the third is held
    for k, lost in ((1, True), (2, True), (3, False)):
        texts = PairTexts(caption=BASIS[2], others=BASIS[[0, 1, 3]], k=k)
        score = compare_with_texts(draws(AHEAD, 500, 3), draws(AHEAD, 8, 4), texts, 0.001)
        assert score.retrieval_margin is not None
        assert (score.retrieval_margin.upper < 0) is lost
        assert score.retrieval_margin.value <= score.retrieval_margin.upper


def test_without_noise_everything_is_exact() -> None:
    feature = (AHEAD / np.linalg.norm(AHEAD)).astype(np.float32)[None]
    texts = PairTexts(classes=BASIS[:3], caption=BASIS[1], others=BASIS[[0]], k=1)
    score = compare_with_texts(feature, feature, texts, 0.001)
    for each, wanted in (
        (score.class_margin, (feature[0, 0] - feature[0, 1]) / np.sqrt(2)),
        (score.caption_similarity, feature[0, 1]),
        (score.retrieval_margin, (feature[0, 1] - feature[0, 0]) / np.sqrt(2)),
    ):
        assert each is not None and each.value == each.upper == pytest.approx(float(wanted), abs=1e-7)


def test_own_captions_are_no_rivals() -> None:
    texts = TextReferences(
        captions=(BASIS[0], None), pool=BASIS[:3], own=(np.array([True, False, False]), np.zeros(3, bool))
    )
    assert texts.of(0).others is not None and len(texts.of(0).others) == 2
    assert texts.of(1).caption is None
    feature = draws(BASIS[0], 1, 0)
    assert compare_with_texts(feature, feature, texts.of(1), 0.001).retrieval_margin is None
