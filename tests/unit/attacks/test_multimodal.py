"""AttackVLM, M-Attack and FOA, and the pieces they are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from smoothcert.attacks import BareSubject, FeatureMatching, SmoothedSubject, make_attack
from smoothcert.attacks.crops import random_crops, resize
from smoothcert.attacks.foa import FOA, FOASettings
from smoothcert.attacks.noise import NoiseKey
from smoothcert.attacks.transport import cluster_centres, transport_similarity
from smoothcert.encoders.known import KnownEncoder
from smoothcert.errors import EncoderError, JobError


def keys(count: int) -> list[NoiseKey]:
    return [NoiseKey(0, str(row), "attack") for row in range(count)]


def matching(encoder: Any, images: torch.Tensor, with_images: bool = True) -> FeatureMatching:
    targets = images.roll(1, 0).flip(3)
    features = encoder.encode_images(targets)
    return FeatureMatching(features, encoder.encode_images(images), targets if with_images else None)


def test_attackvlm_makes_its_sign_steps_and_goes_on_after_success(
    linear: Any, images: torch.Tensor, pair_ids: list[str]
) -> None:
    objective = matching(linear, images, with_images=False)
    subject = BareSubject(linear)
    attack = make_attack("attackvlm", steps=1)
    outcome = attack.run(subject, objective, images, pair_ids, norm="linf", budget=8 / 255)
    _, gradient = subject.gradient(images, lambda f, rows: objective.select(rows).loss(f), [])
    torch.testing.assert_close(outcome.images, images + gradient.sign() / 255, rtol=0, atol=1e-6)
    full = make_attack("attackvlm", steps=40).run(
        subject, objective, images, pair_ids, norm="linf", budget=8 / 255
    )
    before = objective.loss(linear.encode_images(images))
    after = objective.loss(linear.encode_images(full.images))
    assert (after > torch.minimum(before + 0.3, torch.tensor(0.9))).all()
    assert all(record.steps == 42 for record in full.records)
    assert max(record.perturbation_linf for record in full.records) <= 8 / 255


@pytest.mark.parametrize("name", ["m-attack", "foa"])
def test_crop_matching_nears_the_target_on_bare_and_smoothed_subjects(
    patchy: Any, images: torch.Tensor, pair_ids: list[str], name: str
) -> None:
    objective = matching(patchy, images)
    attack = make_attack(name, steps=30, check_every=15)
    for subject in (BareSubject(patchy, chunk=3), SmoothedSubject(patchy, 0.05, eot_draws=8)):
        outcome = attack.run(subject, objective, images, pair_ids, norm="linf", budget=16 / 255)
        before = objective.margin(patchy.encode_images(images))
        after = objective.margin(patchy.encode_images(outcome.images))
        assert (after <= before).all() and (before - after).mean() > 0.2
        assert max(record.perturbation_linf for record in outcome.records) <= 16 / 255


@pytest.mark.parametrize("name", ["m-attack", "foa"])
def test_crops_are_keyed_by_pair(patchy: Any, images: torch.Tensor, pair_ids: list[str], name: str) -> None:
    objective = matching(patchy, images)
    attack = make_attack(name, steps=6, check_every=3)
    subject = BareSubject(patchy)
    together = attack.run(subject, objective, images, pair_ids, norm="linf", budget=16 / 255)
    rows = torch.tensor([5])
    alone = attack.run(
        subject, objective.select(rows), images[rows], pair_ids[5:6], norm="linf", budget=16 / 255
    )
    # a sign step may flip where a gradient is rounded to either side of zero
    same = (together.images[5] - alone.images[0]).abs() < 1e-6
    assert same.float().mean() > 0.97
    assert together.records[5].queries == alone.records[0].queries


def test_an_ensemble_may_have_other_input_sizes(
    patchy: Any, images: torch.Tensor, pair_ids: list[str]
) -> None:
    other = KnownEncoder.rotating(3.0, input_size=(9, 9))
    outcome = make_attack("m-attack", steps=4, surrogates=(patchy, other)).run(
        BareSubject(patchy), matching(patchy, images), images, pair_ids, norm="linf", budget=16 / 255
    )
    # clean look, 4 steps on 2 encoders, last look
    assert {record.queries for record in outcome.records} == {1 + 8 + 1}


def test_the_encoders_that_are_searched_must_give_gradients_and_only_they(
    images: torch.Tensor, pair_ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (images.shape[2], images.shape[3])
    good, frozen = KnownEncoder.rotating(input_size=size), KnownEncoder.rotating(input_size=size)
    encode = frozen._image_features
    monkeypatch.setattr(frozen, "_image_features", lambda batch: encode(batch.detach()))
    settings: dict[str, Any] = {"norm": "linf", "budget": 16 / 255}
    through = make_attack("m-attack", steps=2, surrogates=(frozen,))
    with pytest.raises(EncoderError, match="gives no gradients"):
        through.run(BareSubject(good), matching(good, images), images, pair_ids, **settings)
    transferred = make_attack("m-attack", steps=2, surrogates=(good,))
    outcome = transferred.run(BareSubject(frozen), matching(frozen, images), images, pair_ids, **settings)
    assert len(outcome.records) == len(images)


@pytest.mark.parametrize("name", ["m-attack", "foa"])
def test_a_number_that_the_subject_itself_lacks_fails_its_pair_and_no_other(
    patchy: Any, images: torch.Tensor, pair_ids: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only crops of one image show the fault: no query of the whole image sees it."""
    objective, encode = matching(patchy, images), patchy._image_features

    def broken(batch: torch.Tensor) -> torch.Tensor:
        flat = batch.flatten(1).std(dim=1, keepdim=True) < 1e-4
        return torch.where(flat, torch.nan, encode(batch))

    marked = images.clone()
    marked[3] = 0.5
    marked[3, :, 0, 0] = 1.0  # most crops leave this corner out
    monkeypatch.setattr(patchy, "_image_features", broken)
    arguments: dict[str, Any] = {"norm": "linf", "budget": 1e-6}
    attack = make_attack(name, steps=8, check_every=4)
    outcome = attack.run(BareSubject(patchy, chunk=3), objective, marked, pair_ids, **arguments)
    errors = [record.error for record in outcome.records]
    assert errors[3] == "the encoder returned NaN or infinity under attack" and not outcome.records[3].success
    assert errors[:3] + errors[4:] == [""] * 7
    assert all(record.perturbation_linf > 0 for row, record in enumerate(outcome.records) if row != 3)
    # a surrogate's fault is none of the subject's
    transferred = make_attack(name, steps=8, surrogates=(patchy,))
    with pytest.raises(FloatingPointError, match="a surrogate gave NaN"):
        transferred.run(BareSubject(patchy), objective, marked, pair_ids, **arguments)


def test_what_is_missing_is_named(linear: Any, images: torch.Tensor, pair_ids: list[str]) -> None:
    arguments = (BareSubject(linear), matching(linear, images), images, pair_ids)
    with pytest.raises(EncoderError, match="'foa' needs patch features, but encoder 'linear' has none"):
        make_attack("foa").run(*arguments, norm="linf", budget=0.1)
    without = (BareSubject(linear), matching(linear, images, with_images=False), images, pair_ids)
    with pytest.raises(JobError, match="needs target images"):
        make_attack("m-attack").run(*without, norm="linf", budget=0.1)


def test_crops_stay_inside_and_keep_their_share_of_the_area() -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    ramps = torch.stack((x, y, torch.ones_like(x)))[None].expand(200, -1, -1, -1)
    crops = random_crops(ramps, keys(200), (0.5, 0.9), (32, 32))
    assert torch.allclose(crops[:, 2], torch.ones(200, 32, 32), atol=1e-5)
    # ramps stay ramps: their slopes are the sides of the crop
    across = (crops[:, 0, :, -1] - crops[:, 0, :, 0]).mean(1) / 31 * 32 / 64
    down = (crops[:, 1, -1] - crops[:, 1, 0]).mean(1) / 31 * 32 / 64
    area = (across * down).numpy()
    assert area.min() > 0.48 and area.max() < 0.92
    assert abs(area.mean() - 0.69) < 0.04
    aspect = (across / down).numpy()
    assert aspect.min() > 0.74 and aspect.max() < 1.35
    assert crops[:, 0].min() >= 0 and crops[:, 0].max() <= 63
    middle = crops[:, 0].mean((1, 2))
    assert middle.std() > 1


def test_crops_pass_gradients_back_and_resizing_leaves_fitting_images_alone() -> None:
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    (gradient,) = torch.autograd.grad(random_crops(images, keys(2), (1.0, 1.0), (8, 8)).sum(), images)
    assert gradient.sum() == pytest.approx(2 * 3 * 64, rel=1e-4)
    assert resize(images, (8, 8)) is images
    assert resize(images, (4, 4)).shape == (2, 3, 4, 4)


def test_cold_transport_is_the_best_assignment() -> None:
    generator = torch.Generator().manual_seed(0)
    source, target = torch.randn(5, 6, 4, generator=generator), torch.randn(5, 6, 4, generator=generator)
    ours = transport_similarity(source, target, temperature=0.004, rounds=3000)
    for row in range(5):
        a = torch.nn.functional.normalize(source[row], dim=1)
        b = torch.nn.functional.normalize(target[row], dim=1)
        similarity = (a @ b.T).numpy()
        best = linear_sum_assignment(-similarity)
        assert float(ours[row]) == pytest.approx(similarity[best].mean(), abs=5e-3)


def test_transport_with_unequal_numbers_is_bounded_and_differentiable() -> None:
    source = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    target = source.detach().repeat(1, 2, 1)
    similarity = transport_similarity(source, target)
    assert (similarity <= 1 + 1e-6).all()
    (gradient,) = torch.autograd.grad(similarity.sum(), source)
    assert torch.isfinite(gradient).all() and gradient.abs().max() > 0


def test_clusters_find_separated_groups_and_carry_gradients_to_their_members() -> None:
    middles = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    groups = torch.arange(30) % 3
    noise = torch.randn(1, 30, 2, generator=torch.Generator().manual_seed(0)) * 0.3
    tokens = (middles[groups][None] + noise).requires_grad_(True)
    centres = cluster_centres(tokens, 3)
    expected = torch.stack([tokens[0, groups == group].mean(0) for group in range(3)])
    found = centres[0][torch.cdist(expected, centres[0]).argmin(1)]
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(centres.sum(), tokens)
    np.testing.assert_allclose(gradient, 0.1, rtol=1e-5)
    assert cluster_centres(tokens[:, :2], 5).shape == (1, 2, 2)


def test_slow_surrogates_get_more_weight() -> None:
    attack = FOA("foa", FOASettings())
    first = attack.weights(torch.tensor([[0.1], [0.5]]), torch.full((2, 1), torch.nan))
    np.testing.assert_allclose(first, 1.0)
    # the first improves quickly, the second not at all
    later = attack.weights(torch.tensor([[0.6], [0.5]]), torch.tensor([[0.1], [0.5]]))
    assert later[1] > later[0] and float(later.sum()) == pytest.approx(2)
