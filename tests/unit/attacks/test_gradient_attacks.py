"""PGD and Auto-PGD against encoders whose worst perturbation is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from smoothcert.attacks import (
    BareSubject,
    ClassificationMargin,
    FeatureDivergence,
    SmoothedSubject,
    make_attack,
)
from smoothcert.attacks.apgd import checkpoint_steps
from smoothcert.attacks.pgd import PGDSettings
from smoothcert.encoders.known import KnownEncoder

SIGMA = 0.25


def rotating() -> tuple[KnownEncoder, torch.Tensor, torch.Tensor, list[str]]:
    encoder = KnownEncoder.rotating(2.0, feature_dim=8)
    pixels = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    return encoder, pixels, encoder.encode_images(pixels), [f"p{row}" for row in range(6)]


@pytest.mark.parametrize(("name", "atol"), [("pgd", 0.01), ("apgd", 1e-4)])
def test_bare_worst_case_is_reached_in_l2(name: str, atol: float) -> None:
    encoder, pixels, clean, ids = rotating()
    attack = make_attack(name, steps=60, early_stop=False)
    outcome = attack.run(BareSubject(encoder), FeatureDivergence(clean), pixels, ids, norm="l2", budget=0.3)
    worst = np.cos(2 * 0.3)
    cosines = np.array([record.margin for record in outcome.records]) + 0.5
    assert (cosines >= worst - 1e-6).all()
    np.testing.assert_allclose(cosines, worst, atol=atol)


@pytest.mark.parametrize("name", ["pgd", "apgd"])
def test_bare_worst_case_is_reached_in_linf(name: str) -> None:
    encoder, pixels, clean, ids = rotating()
    attack = make_attack(name, steps=40, early_stop=False)
    outcome = attack.run(
        BareSubject(encoder), FeatureDivergence(clean), pixels, ids, norm="linf", budget=0.04
    )
    worst = np.cos(2 * 0.04 * np.abs(encoder.direction).sum())
    np.testing.assert_allclose([record.margin + 0.5 for record in outcome.records], worst, atol=1e-5)


@pytest.mark.parametrize("name", ["pgd", "apgd"])
def test_smoothed_worst_case_is_reached_by_averaged_gradients(name: str) -> None:
    encoder, pixels, clean, ids = rotating()
    subject = SmoothedSubject(encoder, SIGMA, eot_draws=64)
    attack = make_attack(name, steps=40, early_stop=False)
    outcome = attack.run(subject, FeatureDivergence(clean), pixels, ids, norm="l2", budget=0.3)
    attacked = encoder.smoothed_feature(outcome.images.numpy(), SIGMA)
    cosines = (attacked * clean.numpy()).sum(1) / np.linalg.norm(attacked, axis=1)
    worst = encoder.worst_cosine(pixels.numpy(), 0.3, SIGMA, clean.numpy())
    assert (cosines >= worst - 1e-5).all()
    np.testing.assert_allclose(cosines, worst, atol=0.012)


@pytest.mark.parametrize("smoothed", [False, True], ids=["bare", "smoothed"])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("pgd", {"steps": 8, "restarts": 2}),
        ("apgd-ce", {"steps": 10}),
        ("apgd-t", {"steps": 6, "targets": 2}),
        ("fab", {"steps": 5, "targets": 2}),
        ("square", {"steps": 30}),
        ("autoattack", {"steps": 5, "square_steps": 20, "targets": 2}),
    ],
)
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_pair_does_the_same_alone_as_in_a_batch(
    linear: Any,
    images: torch.Tensor,
    pair_ids: list[str],
    name: str,
    settings: Any,
    norm: Any,
    smoothed: bool,
) -> None:
    subject = SmoothedSubject(linear, 0.1, eot_draws=4) if smoothed else BareSubject(linear)
    labels = linear.encode_images(images).argmax(1)
    objective = ClassificationMargin(torch.eye(5), labels)
    # some pairs fall, some hold: pairs leave at different times
    budget = 0.05 if norm == "l2" else 0.005
    attack = make_attack(name, **settings)
    together = attack.run(subject, objective, images, pair_ids, norm=norm, budget=budget, seed=3)
    for row in (0, 5):
        alone = attack.run(
            subject,
            objective.select(torch.tensor([row])),
            images[row : row + 1],
            pair_ids[row : row + 1],
            norm=norm,
            budget=budget,
            seed=3,
        )
        ours, theirs = together.records[row], alone.records[0]
        assert (ours.success, ours.steps, ours.queries) == (theirs.success, theirs.steps, theirs.queries)
        assert ours.margin == pytest.approx(theirs.margin, abs=1e-5)
        torch.testing.assert_close(together.images[row], alone.images[0], rtol=0, atol=1e-5)


def test_seeds_and_names_change_the_search(linear: Any, images: torch.Tensor, pair_ids: list[str]) -> None:
    objective = FeatureDivergence(linear.encode_images(images))
    attack = make_attack("pgd", steps=2)

    def run(seed: int, names: list[str]) -> torch.Tensor:
        return attack.run(
            BareSubject(linear), objective, images, names, norm="l2", budget=0.1, seed=seed
        ).images

    first = run(0, pair_ids)
    assert torch.equal(first, run(0, pair_ids))
    assert not torch.allclose(first, run(1, pair_ids), atol=1e-4)
    assert not torch.allclose(first, run(0, [f"{name}!" for name in pair_ids]), atol=1e-4)


def test_solved_pairs_leave_the_batch(
    linear: Any, images: torch.Tensor, pair_ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    encode = linear._image_features
    monkeypatch.setattr(linear, "_image_features", lambda batch: sizes.append(len(batch)) or encode(batch))
    labels = linear.encode_images(images).argmax(1)
    labels[0] = (labels[0] + 1) % 5  # misclassified before any attack
    objective = ClassificationMargin(torch.eye(5), labels)
    budgets = torch.linspace(0.001, 0.2, 8)
    sizes.clear()
    outcome = make_attack("pgd", steps=20).run(
        BareSubject(linear), objective, images, pair_ids, norm="l2", budget=budgets
    )
    records = outcome.records
    assert records[0].success and records[0].steps == 1 and records[0].perturbation_l2 == 0
    solved = [record.success for record in records]
    assert 1 < sum(solved) < 8
    assert all(record.steps == 22 for record in records if not record.success)
    assert all(record.steps < 22 for record in records if record.success)
    # the two checks (gradients, clean images), then never more than are open; every image is accounted for
    asked = sizes[1:]
    assert asked == sorted(asked, reverse=True) and asked[-1] == 8 - sum(solved)
    assert sum(asked) == sum(record.queries for record in records)
    assert outcome.images.shape == images.shape


def test_without_early_stop_the_search_goes_on(
    linear: Any, images: torch.Tensor, pair_ids: list[str]
) -> None:
    objective = FeatureDivergence(linear.encode_images(images), threshold=0.999)
    arguments = (BareSubject(linear), objective, images, pair_ids)
    stopped = make_attack("pgd", steps=20).run(*arguments, norm="l2", budget=0.3)
    patient = make_attack("pgd", steps=20, early_stop=False).run(*arguments, norm="l2", budget=0.3)
    for quick, slow in zip(stopped.records, patient.records, strict=True):
        assert quick.success and slow.success
        assert slow.steps == 22 and slow.margin < quick.margin


def test_records_measure_what_was_done(linear: Any, images: torch.Tensor, pair_ids: list[str]) -> None:
    objective = FeatureDivergence(linear.encode_images(images))
    budgets = [0.01 * (row + 1) for row in range(8)]
    outcome = make_attack("pgd", steps=5, restarts=2, early_stop=False).run(
        BareSubject(linear), objective, images, pair_ids, norm="linf", budget=budgets, seed=4
    )
    delta = (outcome.images.double() - images.double()).numpy().reshape(8, -1)
    for row, record in enumerate(outcome.records):
        assert record.pair_id == pair_ids[row]
        assert record.perturbation_l2 == pytest.approx(np.linalg.norm(delta[row]), rel=1e-12)
        assert record.perturbation_linf == np.abs(delta[row]).max() <= budgets[row] == record.budget
        assert (record.attack, record.norm, record.objective, record.subject) == (
            "pgd",
            "linf",
            "divergence",
            "bare",
        )
        assert (record.seed, record.restarts, record.eot_draws) == (4, 2, 1)
        assert record.elapsed_s > 0 and np.isnan(record.distance) and record.error == ""
    margins = objective.margin(linear.encode_images(outcome.images))
    np.testing.assert_allclose([record.margin for record in outcome.records], margins, atol=1e-6)


def test_a_pair_with_broken_features_fails_alone(
    linear: Any, images: torch.Tensor, pair_ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = linear._image_features
    objective = FeatureDivergence(linear.encode_images(images), threshold=-1)
    marked = images.clone()
    marked[3, 0, 0, 0] = 1.0

    def broken(batch: torch.Tensor) -> torch.Tensor:
        return torch.where(batch[:, 0, 0, :1] > 0.9, torch.nan, encode(batch))

    monkeypatch.setattr(linear, "_image_features", broken)
    for subject in (BareSubject(linear), SmoothedSubject(linear, 0.01, eot_draws=4)):
        outcome = make_attack("pgd", steps=5).run(
            subject, objective, marked, pair_ids, norm="l2", budget=0.05
        )
        for row, record in enumerate(outcome.records):
            if row == 3:
                assert "NaN" in record.error and not record.success and np.isnan(record.margin)
            else:
                assert record.error == "" and np.isfinite(record.margin) and record.perturbation_l2 > 0.04


def test_checkpoints_are_those_of_the_paper() -> None:
    assert sorted(checkpoint_steps(100)) == [22, 41, 57, 70, 80, 87, 93, 99]


def test_step_sizes_follow_their_rule() -> None:
    constant = PGDSettings(steps=40, step_rule="constant")
    assert [constant.share(step) for step in range(40)] == [0.25] * 40
    cosine = PGDSettings(steps=40)
    shares = [cosine.share(step) for step in range(40)]
    assert shares[0] == 0.5 and shares == sorted(shares, reverse=True)


def test_stronger_settings_are_not_weaker(linear: Any, images: torch.Tensor, pair_ids: list[str]) -> None:
    objective = FeatureDivergence(linear.encode_images(images))

    def margins(**settings: Any) -> np.ndarray:
        outcome = make_attack("pgd", early_stop=False, **settings).run(
            BareSubject(linear), objective, images, pair_ids, norm="l2", budget=0.5
        )
        return np.array([record.margin for record in outcome.records])

    one = margins(steps=3)
    assert (margins(steps=3, restarts=4) <= one + 1e-7).all()
    assert margins(steps=40).mean() < one.mean()
