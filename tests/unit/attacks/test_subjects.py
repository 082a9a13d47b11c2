from __future__ import annotations

import numpy as np
import pytest
import torch

from smoothcert.attacks import BareSubject, FeatureDivergence, SmoothedSubject, make_attack
from smoothcert.attacks.noise import NoiseKey
from smoothcert.encoders.known import KnownEncoder
from smoothcert.errors import EncoderError, JobError


def keys(names: str) -> list[NoiseKey]:
    return [NoiseKey(0, name, "attack", (7,)) for name in names]


@pytest.fixture
def known() -> KnownEncoder:
    return KnownEncoder.rotating(2.0, feature_dim=5)


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("chunk", [1, 7, 16, 20, 40, 119])
def test_chunked_gradient_equals_the_unchunked_one(
    known: KnownEncoder, pixels: torch.Tensor, chunk: int
) -> None:
    objective = FeatureDivergence(torch.randn(3, 5, generator=torch.Generator().manual_seed(1)))

    def answer(chunk: int) -> tuple[torch.Tensor, torch.Tensor]:
        subject = SmoothedSubject(known, 0.3, eot_draws=40, chunk=chunk)
        return subject.gradient(pixels, lambda f, rows: objective.select(rows).loss(f), keys("abc"))

    features, gradient = answer(120)
    chunked_features, chunked_gradient = answer(chunk)
    torch.testing.assert_close(chunked_features, features, rtol=0, atol=1e-6)
    torch.testing.assert_close(chunked_gradient, gradient, rtol=0, atol=1e-6)
    assert gradient.abs().max() > 0.05


def test_no_forward_pass_is_larger_than_the_chunk(
    known: KnownEncoder, pixels: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    encode = known._image_features

    def watched(batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        return encode(batch)

    monkeypatch.setattr(known, "_image_features", watched)
    for draws in (5, 64, 200):
        subject = SmoothedSubject(known, 0.3, eot_draws=draws, chunk=32)
        subject.gradient(pixels, lambda f, rows: f.sum(1), keys("abc"))
        subject.features(pixels, keys("abc"))
        list(subject.draws(pixels[0], keys("a")[0], draws))
    assert max(sizes) == 32


def test_features_converge_to_the_known_mean(known: KnownEncoder, pixels: torch.Tensor) -> None:
    features = SmoothedSubject(known, 0.4, eot_draws=20_000).features(pixels, keys("abc"))
    truth = known.smoothed_feature(pixels.numpy(), 0.4)
    # each coordinate has deviation at most 1: six standard errors
    np.testing.assert_allclose(features.numpy(), truth, atol=6 / np.sqrt(20_000))
    norms = torch.linalg.vector_norm(features, dim=1).numpy()
    np.testing.assert_allclose(norms, known.smooth_norm(pixels.numpy(), 0.4), atol=0.03)


def test_noise_of_a_pair_does_not_depend_on_the_batch(known: KnownEncoder, pixels: torch.Tensor) -> None:
    subject = SmoothedSubject(known, 0.4, eot_draws=8)
    together = subject.features(pixels, keys("abc"))
    alone = subject.features(pixels[2:], keys("c"))
    torch.testing.assert_close(alone[0], together[2], rtol=0, atol=1e-7)
    assert not torch.allclose(subject.features(pixels, keys("abd"))[2], together[2], atol=1e-3)


def test_bare_gradient_is_the_derivative(known: KnownEncoder, pixels: torch.Tensor) -> None:
    subject = BareSubject(known, chunk=2)
    reference = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0])
    _, gradient = subject.gradient(pixels, lambda f, rows: f @ reference, keys("abc"))
    step = torch.tensor(known.direction, dtype=torch.float32) * 1e-3
    up, down = subject.features(pixels + step, []), subject.features(pixels - step, [])
    slope = (gradient * torch.tensor(known.direction)).sum(dim=(1, 2, 3))
    np.testing.assert_allclose(slope.numpy(), ((up - down) @ reference / 2e-3).numpy(), atol=2e-3)


def test_an_empty_batch_is_answered(known: KnownEncoder) -> None:
    nothing = torch.zeros((0, 3, 4, 4))
    for subject in (BareSubject(known), SmoothedSubject(known, 0.3)):
        assert subject.features(nothing, []).shape == (0, 5)


def test_an_encoder_without_gradients_is_refused(
    known: KnownEncoder, pixels: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = known._image_features
    monkeypatch.setattr(known, "_image_features", lambda batch: encode(batch.detach()))
    with pytest.raises(EncoderError, match="gives no gradients.*\n.*square"):
        BareSubject(known).check_gradients()
    with torch.inference_mode():
        frozen = torch.ones(1)
    monkeypatch.setattr(known, "_image_features", lambda batch: batch.flatten(1)[:, :5] * frozen)
    with pytest.raises(EncoderError, match="gives no gradients"):
        BareSubject(known).check_gradients()


class Rounding(KnownEncoder):
    """Differentiable everywhere, and nowhere of use: what quantisation in front of an encoder does."""

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return super()._image_features(torch.round(pixels * 255) / 255)


class Steep(KnownEncoder):
    """Right features with gradients that are no numbers."""

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return super()._image_features(pixels) + (0 * pixels.sum(dim=(1, 2, 3))).sqrt()[:, None]


@pytest.mark.parametrize(("kind", "said"), [(Rounding, "zero everywhere"), (Steep, "NaN or infinite")])
def test_gradients_that_lead_nowhere_are_refused(
    pixels: torch.Tensor, kind: type[KnownEncoder], said: str
) -> None:
    encoder = kind.rotating(2.0, feature_dim=5)
    for subject in (BareSubject(encoder), SmoothedSubject(encoder, 0.3, eot_draws=8)):
        with pytest.raises(
            EncoderError, match=f"subject '{subject.name}'.*{said}.*\n.*square.*differentiable"
        ):
            subject.check_gradients()
    goal = FeatureDivergence(encoder.encode_images(pixels), 0.9)
    arguments = (BareSubject(encoder), goal, pixels, list("abc"))
    with pytest.raises(EncoderError, match=said):
        make_attack("pgd", steps=2).run(*arguments, norm="l2", budget=0.5)
    found = make_attack("square", steps=60).run(*arguments, norm="l2", budget=0.5)
    assert max(record.margin for record in found.records) < 0.1
    assert all(record.perturbation_l2 > 0 for record in found.records)


def test_bad_settings_are_named(known: KnownEncoder) -> None:
    with pytest.raises(JobError, match="sigma=0"):
        SmoothedSubject(known, 0)
    with pytest.raises(JobError, match="sigma=nan"):
        SmoothedSubject(known, float("nan"))
    with pytest.raises(JobError, match="eot_draws=0"):
        SmoothedSubject(known, 0.5, eot_draws=0)
    with pytest.raises(JobError, match="chunk=0"):
        BareSubject(known, chunk=0)
