from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from smoothcert.attacks.noise import NoiseKey
from smoothcert.attacks.norms import NORMS, Ball, Norm, difference, measured_norm


def ball_of(images: torch.Tensor, budget: float, norm: Norm) -> Ball:
    return Ball(images, torch.full((len(images),), budget, dtype=torch.float64), norm)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    exponent=st.floats(-7, 1),
    norm=st.sampled_from(NORMS),
    eight_bit=st.booleans(),
)
def test_the_budget_is_never_exceeded(seed: int, exponent: float, norm: Norm, eight_bit: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(4, 3, 9, 9, generator=generator)
    if eight_bit:
        images = (images * 255).round() / 255
    budget = 10**exponent
    wanted = images + torch.randn(images.shape, generator=generator) * budget * 3
    points = ball_of(images, budget, norm).project(wanted)
    assert points.dtype == torch.float32
    assert points.min() >= 0 and points.max() <= 1
    # measured again by numpy, which sums in another order
    delta = (points.numpy().astype(np.float64) - images.numpy().astype(np.float64)).reshape(4, -1)
    order = 2 if norm == "l2" else np.inf
    assert (np.linalg.norm(delta, ord=order, axis=1) <= budget).all()


@pytest.mark.parametrize("norm", NORMS)
def test_little_budget_is_left_unused(norm: Norm) -> None:
    images = torch.full((1, 3, 8, 8), 0.5)
    points = ball_of(images, 0.1, norm).project(images + torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8))
    length = float(measured_norm(difference(points, images), norm))
    assert 0.1 * (1 - 1e-6) < length <= 0.1


@pytest.mark.parametrize("seed", range(6))
def test_l2_projection_is_the_nearest_point_of_ball_and_box(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, z = rng.random(6), rng.random(6) * 3 - 1
    budget = 0.6
    found = minimize(
        lambda y: ((y - z) ** 2).sum(),
        x,
        jac=lambda y: 2 * (y - z),
        bounds=[(0, 1)] * 6,
        constraints={
            "type": "ineq",
            "fun": lambda y: budget**2 - ((y - x) ** 2).sum(),
            "jac": lambda y: -2 * (y - x),
        },
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    images = torch.tensor(x, dtype=torch.float32).reshape(1, 3, 2, 1)
    ours = ball_of(images, budget, "l2").project(torch.tensor(z, dtype=torch.float32).reshape(1, 3, 2, 1))
    np.testing.assert_allclose(ours.numpy().ravel(), found.x, atol=2e-5)


def test_linf_projection_clamps_each_pixel() -> None:
    images = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 3, 1, 1)
    points = ball_of(images, 0.1, "linf").project(torch.tensor([-1.0, 0.55, 0.95]).reshape(1, 3, 1, 1))
    np.testing.assert_allclose(points.ravel(), [0.0, 0.55, 0.95])


@pytest.mark.parametrize("norm", NORMS)
def test_steepest_direction_beats_random_ones(norm: Norm) -> None:
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(1, 3, 2, 2, generator=generator)
    best = ball_of(torch.zeros_like(gradient), 1.0, norm).steepest(gradient)
    assert float(measured_norm(best, norm)) == pytest.approx(1.0, abs=1e-6)
    others = torch.randn(5000, 12, generator=generator)
    order = 2 if norm == "l2" else float("inf")
    others = others / torch.linalg.vector_norm(others, ord=order, dim=1, keepdim=True)
    assert (others @ gradient.ravel()).max() <= (best * gradient).sum() + 1e-6


def test_steepest_direction_survives_tiny_and_broken_gradients() -> None:
    gradient = torch.zeros(4, 3, 2, 2)
    gradient[0] = 1e-30
    gradient[1, 0, 0, 0] = torch.nan
    gradient[2, 0, 0, 0] = torch.inf
    found = ball_of(torch.zeros_like(gradient), 1.0, "l2").steepest(gradient)
    np.testing.assert_allclose(measured_norm(found, "l2"), [1, 0, 0, 0], atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_random_points_fill_the_ball(norm: Norm) -> None:
    images = torch.full((200, 3, 2, 2), 0.5)
    keys = [NoiseKey(0, str(row), "attack") for row in range(200)]
    points = ball_of(images, 0.2, norm).random_points(keys)
    lengths = measured_norm(difference(points, images), norm).numpy()
    assert lengths.max() <= 0.2
    # P(length <= 0.9 budget) = 0.9^12 = 0.28 in either norm; 200 draws, five standard errors
    assert abs((lengths <= 0.18).mean() - 0.9**12) < 5 * np.sqrt(0.28 * 0.72 / 200)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_points_on_the_way_are_in_the_box_and_fit_after_rounding(norm: Norm) -> None:
    generator = torch.Generator().manual_seed(5)
    images = torch.rand(20, 3, 8, 8, generator=generator).round()
    ball = ball_of(images, 0.3, norm)
    near = ball.near(images + 0.2 * torch.randn(images.shape, generator=generator))
    assert near.min() >= 0 and near.max() <= 1
    assert (measured_norm(difference(near, images), norm) <= 0.3 * (1 + 1e-6)).all()
    assert ball.fit(images + 0.5 * (near - images))[1].abs().max() > 0
    if norm == "linf":
        assert torch.equal(near, ball.project(near)), "exact on the way already"
        return
    # a hair too far, as rounding may leave it
    grown = (images + (near - images) * (1 + 3e-7)).clamp(0, 1)
    fitted, delta = ball.fit(grown)
    torch.testing.assert_close(fitted, near, rtol=0, atol=1e-5)
    assert torch.equal(delta, difference(fitted, images))
    assert (measured_norm(delta, norm) <= 0.3).all()
