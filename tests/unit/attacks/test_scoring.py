"""Cosine bounds against encoders whose smoothed features are known exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom

from smoothcert.attacks import (
    AttackScore,
    BareSubject,
    ClassificationMargin,
    FeatureDivergence,
    SmoothedSubject,
    TextReferences,
    TextualScore,
    draw_clean,
    make_attack,
    score,
)
from smoothcert.attacks.cosines import _bilinear_reach, cosine_between, cosine_to_fixed, positive_means
from smoothcert.encoders.known import KnownEncoder
from smoothcert.errors import JobError
from smoothcert.statistics import lower_bound

SIGMA = 0.25


def misses_allowed(trials: int, alpha: float) -> int:
    """More misses than this have probability below 1e-6 where each happens with probability alpha."""
    return int(binom.isf(1e-6, trials, alpha))


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_bounds_hold_as_often_as_they_promise_and_are_tight(spread: float) -> None:
    """Unit vectors with independent noise of a known mean direction, cosines computed to three decimals."""
    rng = np.random.default_rng(0)
    a, b, v = (
        np.eye(12)[0],
        np.eye(12)[0] * 0.8 + np.eye(12)[1] * 0.6,
        np.eye(12)[2] * 0.6 + np.eye(12)[0] * 0.8,
    )

    def draws(middle: np.ndarray, count: int) -> np.ndarray:
        noisy = middle + spread / np.sqrt(12) * rng.standard_normal((count, 12))
        return np.asarray(noisy / np.linalg.norm(noisy, axis=1, keepdims=True))

    # The noise is isotropic, so means point along a and b exactly.
    between, fixed = 0.8, float(b @ v)
    alpha, trials, widths = 0.05, 60, []
    above = below = fixed_above = fixed_below = 0
    for _ in range(trials):
        attacked, clean = draws(b, 400), draws(a, 400)
        pair, single = cosine_between(attacked, clean, alpha), cosine_to_fixed(attacked, v, alpha)
        above, below = above + (pair.upper < between), below + (pair.lower > between)
        fixed_above, fixed_below = fixed_above + (single.upper < fixed), fixed_below + (single.lower > fixed)
        assert pair.value == pytest.approx(between, abs=0.25 * max(spread, 0.5))
        widths.append((pair.upper - between, single.upper - fixed))
    assert max(above, below, fixed_above, fixed_below) <= misses_allowed(trials, alpha)
    slack = np.mean(widths, axis=0)
    assert (slack < {0.3: 0.03, 1.0: 0.1, 3.0: 0.5}[spread]).all()


@pytest.mark.parametrize("middle", [0.0, 0.02, 0.1, 0.5])
def test_deciding_a_sign_agrees_with_the_lower_bound_of_the_mean(middle: float) -> None:
    rng = np.random.default_rng(3)
    values = np.clip(middle + 0.3 * rng.standard_normal((60, 300)), -1, 1)
    bound = lower_bound((values + 1) / 2, 0.01, "betting")
    clear = np.abs(bound - 0.5) > 1e-4
    assert clear.sum() > 50
    assert ((bound > 0.5) == positive_means(values, 0.01))[clear].all()
    if middle == 0.0:
        assert positive_means(values, 0.01).sum() <= misses_allowed(60, 0.01)


@pytest.mark.parametrize("b", [0.0, 0.3, 1.0])
def test_range_of_the_bilinear_test_is_the_spectral_norm(b: float) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        p, q = rng.standard_normal((2, 5))
        p, q = p / np.linalg.norm(p), q / np.linalg.norm(q)
        expected = np.linalg.norm(np.eye(5) - b * np.outer(p, q), 2)
        assert _bilinear_reach(np.array([b]), float(p @ q))[0] == pytest.approx(expected, rel=1e-9)


def known_case() -> tuple[KnownEncoder, torch.Tensor, list[str]]:
    encoder = KnownEncoder.rotating(2.0, feature_dim=6)
    pixels = torch.rand(10, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    return encoder, pixels, [f"p{row}" for row in range(10)]


def test_scores_bound_the_known_cosines_and_catch_a_bound_raised_by_a_twentieth() -> None:
    encoder, pixels, ids = known_case()
    subject = SmoothedSubject(encoder, SIGMA)
    delta = torch.tensor(encoder.worst_delta(pixels.numpy(), 0.3, SIGMA), dtype=torch.float32)
    attacked = pixels + delta
    objective = FeatureDivergence(encoder.encode_images(pixels))
    clean = draw_clean(subject, pixels, ids, seed=0, draws=6000)
    scores = score(subject, objective, attacked, clean, attack="worst", seed=0, draws=6000)
    # sound certificates at this radius, at their tightest: the exact worst cosines
    worst = encoder.worst_cosine(pixels.numpy(), 0.3, SIGMA)
    from_clean = encoder.worst_cosine(pixels.numpy(), 0.3, SIGMA, encoder.clean_feature(pixels.numpy()))
    for row, found in enumerate(scores):
        # 40 bounds at 0.001 each: more than 3 misses have probability below 1e-7, none happen with this seed
        assert found.cosine_to_smoothed.lower <= worst[row] <= found.cosine_to_smoothed.upper
        assert found.cosine_to_clean.lower <= from_clean[row] <= found.cosine_to_clean.upper
        assert found.clean_cosine.lower <= 1.0 <= found.clean_cosine.upper
        assert found.cosine_to_smoothed.upper < worst[row] + 0.05
        assert found.cosine_to_clean.upper < from_clean[row] + 0.05
        assert found.draws == 6000 and found.alpha == 0.001 and found.error == ""


def test_scores_of_a_bare_subject_are_exact() -> None:
    encoder, pixels, ids = known_case()
    subject = BareSubject(encoder)
    attacked = pixels + torch.tensor(encoder.direction * 0.3, dtype=torch.float32)
    objective = FeatureDivergence(encoder.encode_images(pixels), threshold=0.9)
    clean = draw_clean(subject, pixels, ids, seed=0)
    for found in score(subject, objective, attacked, clean, attack="shift", seed=0):
        for cosine in (found.cosine_to_clean, found.cosine_to_smoothed):
            assert cosine.lower == cosine.value == cosine.upper == pytest.approx(np.cos(0.6), abs=1e-6)
        assert found.clean_cosine.value == 1.0 and found.draws == 1
        assert found.success and found.margin == pytest.approx(np.cos(0.6) - 0.9, abs=1e-6)
        assert found.texts == TextualScore()


def test_labels_before_and_after(linear: Any, images: torch.Tensor, pair_ids: list[str]) -> None:
    labels = linear.encode_images(images).argmax(1)
    objective = ClassificationMargin(torch.eye(5), labels)
    subject = SmoothedSubject(linear, 0.02)
    outcome = make_attack("pgd", steps=10).run(subject, objective, images, pair_ids, norm="l2", budget=0.4)
    clean = draw_clean(subject, images, pair_ids, seed=1, draws=200)
    texts = TextReferences(classes=np.eye(5))
    scores = score(subject, objective, outcome.images, clean, attack="pgd", seed=1, draws=200, texts=texts)
    assert sum(found.success for found in scores) >= 7
    for found, label in zip(scores, labels.tolist(), strict=True):
        assert found.texts.clean_label == found.texts.margin_label == label
        assert (found.texts.attacked_label != label) == found.success
        margin = found.texts.class_margin
        assert margin is not None and (margin.value < 0) == found.success and margin.value < margin.upper


def test_judging_draws_are_fresh_per_attack_and_apart_from_the_clean_ones() -> None:
    encoder, pixels, ids = known_case()
    subject = SmoothedSubject(encoder, SIGMA)
    objective = FeatureDivergence(encoder.encode_images(pixels))
    clean = draw_clean(subject, pixels, ids, seed=0, draws=64)
    moved = pixels + torch.tensor(encoder.direction * 0.4, dtype=torch.float32)

    def judge(attack: str, seed: int) -> tuple[AttackScore, ...]:
        return score(subject, objective, moved, clean, attack=attack, seed=seed, draws=64)

    one, again, other, reseeded = judge("a", 0), judge("a", 0), judge("b", 0), judge("a", 1)
    assert one == again
    for row in range(10):
        values = {scores[row].cosine_to_clean.value for scores in (one, other, reseeded)}
        assert len(values) == 3
    unmoved = score(subject, objective, pixels, clean, attack="a", seed=0, draws=64)
    assert all(found.cosine_to_clean.lower != found.clean_cosine.lower for found in unmoved)


def test_transfer_is_scoring_on_another_subject() -> None:
    encoder, pixels, ids = known_case()
    other = KnownEncoder.rotating(1.0, feature_dim=6)
    objective = FeatureDivergence(encoder.encode_images(pixels))
    attack = make_attack("pgd", steps=20, early_stop=False)
    outcome = attack.run(BareSubject(encoder), objective, pixels, ids, norm="l2", budget=0.3)
    victim = BareSubject(other, name="victim")
    there = FeatureDivergence(other.encode_images(pixels))
    clean = draw_clean(victim, pixels, ids, seed=0)
    for found in score(victim, there, outcome.images, clean, attack="pgd", seed=0):
        # the same direction in the input, half the rate
        assert found.subject == "victim"
        assert found.cosine_to_clean.value == pytest.approx(np.cos(0.3), abs=0.01)


def test_broken_features_are_an_error_never_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, pixels, ids = known_case()
    objective = FeatureDivergence(encoder.encode_images(pixels))
    attacked = pixels.clone()
    attacked[4] = 0.0
    encode = encoder._image_features
    monkeypatch.setattr(
        encoder,
        "_image_features",
        lambda batch: torch.where(batch.mean((1, 2, 3))[:, None] < 0.1, torch.nan, encode(batch)),
    )
    for subject in (BareSubject(encoder), SmoothedSubject(encoder, 0.01)):
        clean = draw_clean(subject, pixels, ids, seed=0, draws=20)
        found = score(subject, objective, attacked, clean, attack="x", seed=0, draws=20)[4]
        assert "NaN" in found.error and not found.success and np.isnan(found.margin)
        assert np.isnan(found.cosine_to_clean.value) and found.cosine_to_clean.upper == 1.0


def test_bad_requests_are_named() -> None:
    encoder, pixels, ids = known_case()
    bare, smoothed = BareSubject(encoder), SmoothedSubject(encoder, SIGMA)
    objective = FeatureDivergence(encoder.encode_images(pixels))
    clean = draw_clean(smoothed, pixels, ids, seed=0, draws=20)
    with pytest.raises(JobError, match="clean draws of subject 'smoothed' cannot judge subject 'bare'"):
        score(bare, objective, pixels, clean, attack="a", seed=0)
    with pytest.raises(JobError, match="draws=7"):
        score(smoothed, objective, pixels, clean, attack="a", seed=0, draws=7)
    with pytest.raises(JobError, match="draws=1"):
        draw_clean(smoothed, pixels, ids, seed=0, draws=1)
    with pytest.raises(JobError, match="alpha=0"):
        score(smoothed, objective, pixels, clean, attack="a", seed=0, draws=20, alpha=0)
    with pytest.raises(JobError, match="shape"):
        score(smoothed, objective, pixels[:, :, 1:], clean, attack="a", seed=0, draws=20)
