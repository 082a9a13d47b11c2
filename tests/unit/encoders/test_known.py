"""Closed forms of KnownEncoder against Gauss-Hermite quadrature, Monte Carlo and brute force over delta."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import norm

from smoothcert.encoders import KnownEncoder, check_encoder

SIGMA = 0.4
ENCODERS = {
    "rotating": KnownEncoder.rotating(2.5),
    "one step": KnownEncoder.staircase((0.1,), (-0.5, 1.2)),
    "stairs in 5 dimensions": KnownEncoder.staircase(
        (-0.4, 0.0, 0.3), (0.2, 0.5, 2.0, 3.2), input_size=(2, 3), feature_dim=5, seed=3
    ),
    "rotating in 7 dimensions": KnownEncoder.rotating(0.7, feature_dim=7, seed=1),
}


@pytest.fixture(params=ENCODERS.values(), ids=list(ENCODERS))
def encoder(request):
    return request.param


def inputs(encoder, count: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, *encoder.input_size), dtype=np.uint8)


def along(encoder, x: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """x shifted along the encoder's direction: (shifts, 3, H, W) in units of [0,1]."""
    return x / 255 + shifts[:, None, None, None] * encoder.direction


def test_it_keeps_the_contract(encoder):
    check_encoder(encoder)


def test_features_equal_the_stated_function(encoder):
    x = inputs(encoder)
    features = encoder.encode_images(torch.from_numpy(x).float() / 255)
    np.testing.assert_allclose(features, encoder.clean_feature(x), atol=1e-6)
    t = ((x / 255 - 0.5) * encoder.direction).sum((1, 2, 3))
    np.testing.assert_allclose(encoder.position(x), t, atol=1e-12)
    assert np.isclose((encoder.direction**2).sum(), 1)


def test_smoothed_feature_equals_direct_integration(encoder):
    # Trapezoid over +-10 standard deviations, through the encoder itself: exact to the width of a step.
    x = inputs(encoder, 1)[0]
    z = np.linspace(-10, 10, 200_001)
    weights = norm.pdf(z) * (z[1] - z[0])
    expected = np.zeros(encoder.feature_dim)
    for part, share in zip(np.array_split(z, 20), np.array_split(weights, 20), strict=True):
        pixels = torch.from_numpy(along(encoder, x, SIGMA * part)).double()
        expected += share @ encoder.encode_images(pixels).numpy().astype(np.float64)
    np.testing.assert_allclose(encoder.smoothed_feature(x, SIGMA), expected, atol=1e-4)


def test_smoothed_feature_equals_the_mean_over_full_gaussian_noise(encoder):
    # 40,000 draws: standard error <= 0.005 a coordinate; at 5.5 of them one failure in 4e5 (seeded).
    x = inputs(encoder, 3)
    generator = torch.Generator().manual_seed(0)
    for one, mean in zip(x, encoder.smoothed_feature(x, SIGMA), strict=True):
        noise = SIGMA * torch.randn((40_000, *one.shape), generator=generator)
        draws = encoder.encode_images(torch.from_numpy(one).float() / 255 + noise)
        np.testing.assert_allclose(draws.double().mean(0), mean, atol=0.0275)


def test_norm_and_score(encoder):
    x = inputs(encoder)
    mean, clean = encoder.smoothed_feature(x, SIGMA), encoder.clean_feature(x)
    np.testing.assert_allclose(encoder.smooth_norm(x, SIGMA), np.sqrt((mean**2).sum(-1)))
    np.testing.assert_allclose(encoder.robustness_score(x, SIGMA), (1 + (mean * clean).sum(-1)) / 2)


def test_rotation_in_its_textbook_form():
    encoder, x = KnownEncoder.rotating(2.0), np.full((3, 4, 4), 0.5)
    np.testing.assert_allclose(encoder.smoothed_feature(x, 0.5), [np.exp(-0.5), 0])
    np.testing.assert_allclose(encoder.worst_cosine(x, 0.25, 0.5), np.cos(0.5))
    np.testing.assert_allclose(encoder.flip_radius(x, [1.0, 0.0], 0.5), np.pi / 4)


def test_one_step_in_its_textbook_form():
    encoder, x = KnownEncoder.staircase((0.0,), (0.0, np.pi / 2)), np.full((3, 4, 4), 0.5)
    shifted = x + 0.3 * encoder.direction
    np.testing.assert_allclose(encoder.smoothed_feature(shifted, 0.5), norm.cdf([-0.6, 0.6]))
    # <m, (1, -1)> vanishes where both corners are equally likely.
    np.testing.assert_allclose(encoder.flip_radius(shifted, [-1.0, 1.0], 0.5), 0.3, atol=1e-9)


@pytest.mark.parametrize("radius", [0.1, 0.5, 1.3])
def test_worst_cosine_is_the_minimum_over_the_ball(encoder, radius):
    shifts = np.linspace(-radius, radius, 2001)
    rng = np.random.default_rng(1)
    for x in inputs(encoder, 3):
        for reference in (None, encoder.clean_feature(x), rng.standard_normal(encoder.feature_dim)):
            fixed = encoder.smoothed_feature(x, SIGMA) if reference is None else reference
            moved = encoder.smoothed_feature(along(encoder, x, shifts), SIGMA)
            cosines = moved @ fixed / np.linalg.norm(moved, axis=1) / np.linalg.norm(fixed)
            worst = encoder.worst_cosine(x, radius, SIGMA, reference)
            assert worst <= cosines.min() + 1e-9
            np.testing.assert_allclose(worst, cosines.min(), atol=1e-5)
            # Directions that the encoder does not look along, or only partly, do no more harm.
            other = rng.standard_normal((50, *x.shape))
            other *= radius / np.linalg.norm(other.reshape(50, -1), axis=1)[:, None, None, None]
            moved = encoder.smoothed_feature(x / 255 + other, SIGMA)
            cosines = moved @ fixed / np.linalg.norm(moved, axis=1) / np.linalg.norm(fixed)
            assert cosines.min() >= worst - 1e-9


def test_worst_delta_reaches_the_worst_cosine(encoder):
    x = inputs(encoder)
    delta = encoder.worst_delta(x, 0.4, SIGMA)
    np.testing.assert_allclose(np.sqrt((delta**2).sum((1, 2, 3))), 0.4)
    before, after = encoder.smoothed_feature(x, SIGMA), encoder.smoothed_feature(x / 255 + delta, SIGMA)
    cosine = (before * after).sum(-1) / np.linalg.norm(before, axis=-1) / np.linalg.norm(after, axis=-1)
    np.testing.assert_allclose(cosine, encoder.worst_cosine(x, 0.4, SIGMA), atol=1e-9)


def test_flip_radius_is_where_the_sign_changes_first(encoder):
    shifts = np.linspace(-3, 3, 6001)
    rng = np.random.default_rng(2)
    for x in inputs(encoder, 3):
        for _ in range(4):
            vector = rng.standard_normal(encoder.feature_dim)
            values = encoder.smoothed_feature(along(encoder, x, shifts), SIGMA) @ vector
            flipped = np.abs(shifts[values <= 0])
            radius = encoder.flip_radius(x, vector, SIGMA)
            if flipped.size:
                np.testing.assert_allclose(radius, flipped.min(), atol=1.01e-3)
            else:
                assert radius > 3


def test_texts_are_fixed_unit_vectors_in_the_plane():
    encoder = KnownEncoder.rotating(1.0, feature_dim=4, text_angles={"north": np.pi / 2})
    features = encoder.encode_texts(["north", "anything", "anything", "else"]).numpy()
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(
        features[1], features[2], rtol=0, atol=1e-6
    )  # rows of a product may round apart
    assert np.linalg.norm(features[1] - features[3]) > 1e-3
    half = np.full((3, 4, 4), 0.5) + np.pi / 2 * encoder.direction
    np.testing.assert_allclose(encoder.clean_feature(half), features[0], atol=1e-6)


def test_gradients_reach_the_pixels():
    pixels = torch.rand(2, 3, 4, 4, requires_grad=True)
    for encoder in (KnownEncoder.rotating(), KnownEncoder.staircase()):
        encoder.encode_images(pixels)[:, 1].sum().backward()
    assert pixels.grad.abs().sum() > 0


def test_prepare_takes_any_picture():
    encoder = KnownEncoder.rotating(input_size=(5, 7))
    assert encoder.prepare(Image.new("L", (30, 20), 77)).tolist() == np.full((3, 5, 7), 77).tolist()


def test_the_digest_tells_encoders_apart():
    digests = [encoder.digest for encoder in ENCODERS.values()]
    digests += [
        KnownEncoder.rotating(2.5, **extra).digest for extra in ({"seed": 1}, {"text_angles": {"a": 0}})
    ]
    assert len(set(digests)) == len(digests)
    assert KnownEncoder.rotating(2.5).digest == ENCODERS["rotating"].digest


@pytest.mark.parametrize(
    "build",
    [
        lambda: KnownEncoder.rotating(0.0),
        lambda: KnownEncoder.rotating(float("nan")),
        lambda: KnownEncoder.staircase((0.0,), (0.0, np.pi)),
        lambda: KnownEncoder.staircase((0.0,), (1.0, 0.0)),
        lambda: KnownEncoder.staircase((0.0, 0.0), (0.0, 1.0, 2.0)),
        lambda: KnownEncoder.staircase((0.0,), (0.0, 1.0, 2.0)),
        lambda: KnownEncoder.rotating(feature_dim=1),
    ],
)
def test_settings_without_a_closed_form_are_refused(build):
    with pytest.raises(ValueError):
        build()
