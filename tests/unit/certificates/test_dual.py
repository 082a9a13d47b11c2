"""The general T4 bound against a direct solver, and the direction that proves its claim with one mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from smoothcert.certificates import angular_bound, dual_bound, dual_direction, projection_bound


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def solve_dual(gram: np.ndarray, lower: np.ndarray, rho: float) -> float:
    """L-BFGS-B from several starts, on panels of Gauss-Legendre points; shares nothing with the package."""
    node, mass = np.polynomial.legendre.leggauss(12)
    edges = np.linspace(-9.0, 9.0 + rho, 121)
    half = np.diff(edges)[:, None] / 2
    z = (edges[:-1, None] + half * (1 + node)).ravel()
    weight = (half * mass).ravel() * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    ratio = np.exp(rho * z - rho**2 / 2)
    inner, towards = gram[1:, 1:], gram[0, 1:]

    def dual(multipliers: np.ndarray) -> tuple[float, np.ndarray]:
        along = inner @ multipliers
        square = ratio**2 + 2 * ratio * (towards @ multipliers) + multipliers @ along
        length = np.sqrt(np.maximum(square, 1e-24))
        gradient = towards * (weight @ (ratio / length)) + along * (weight @ (1 / length)) - lower
        return float(weight @ length - multipliers @ lower), gradient

    k = len(lower)
    starts = [np.full(k, c) for c in (0.3, 3.0)]
    options = {"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-11}
    found = [
        minimize(dual, x, jac=True, bounds=[(0, 1e6)] * k, method="L-BFGS-B", options=options) for x in starts
    ]
    return min(float(result.fun) for result in found)


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("rho", [0.3, 1.4])
def test_against_a_direct_solver(k: int, rho: float) -> None:
    generator = np.random.default_rng(100 * k + int(10 * rho))
    rows, dimension = 8, 6
    vectors = unit(generator.normal(size=(rows, k + 1, dimension)))
    m = unit(generator.normal(size=(rows, dimension))) * generator.uniform(0.3, 0.95, (rows, 1))
    gram = vectors @ vectors.swapaxes(1, 2)
    lower = np.einsum("nkd,nd->nk", vectors[:, 1:], m) - generator.uniform(0, 0.05, (rows, k))
    found = dual_bound(gram, lower, rho, 1.0)
    for row in range(rows):
        expected = np.clip(solve_dual(gram[row], lower[row], rho), -1, 1)
        assert found[row] >= expected - 1e-7
        assert found[row] <= expected + 2e-5


def test_one_opposite_direction_is_t1() -> None:
    gram = np.array([[1.0, -1.0], [-1.0, 1.0]])
    s = np.linspace(-0.9, 0.99, 30)
    for rho in (0.05, 0.5, 1.5):
        exact = -projection_bound(s, rho, 1.0)
        found = dual_bound(gram, s[:, None], rho, 1.0)
        assert np.all(found >= exact - 1e-12)
        np.testing.assert_allclose(found, exact, atol=2e-5)


def test_any_multipliers_are_sound_and_the_best_are_best() -> None:
    generator = np.random.default_rng(1)
    vectors = unit(generator.normal(size=(40, 4, 5)))
    gram, lower = vectors @ vectors.swapaxes(1, 2), generator.uniform(-0.3, 0.5, (40, 3))
    best = dual_bound(gram, lower, 0.4, 1.0)
    for _ in range(20):
        some = dual_bound(gram, lower, 0.4, 1.0, weights=generator.exponential(1.0, (40, 3)))
        assert np.all(some >= best - 1e-6)


def test_knowing_more_never_hurts() -> None:
    generator = np.random.default_rng(2)
    vectors = unit(generator.normal(size=(60, 3, 4)))
    m = unit(generator.normal(size=(60, 4))) * generator.uniform(0.2, 0.9, (60, 1))
    gram = vectors @ vectors.swapaxes(1, 2)
    lower = np.einsum("nkd,nd->nk", vectors[:, 1:], m)
    both = dual_bound(gram, lower, 0.7, 1.0)
    first = dual_bound(gram[:, :2, :2], lower[:, :1], 0.7, 1.0)
    assert np.all(both <= first + 1e-5)


def test_what_cannot_be_known_is_one() -> None:
    gram = np.eye(2)
    assert float(dual_bound(gram, [-1.0], 0.5, 1.0)) == 1.0
    assert float(dual_bound(gram, [0.5], 100.0, 1.0)) == 1.0


def test_contradictory_bounds_stay_in_range() -> None:
    # <m, v> >= 0.9 and <m, -v> >= 0.9 at once: no such m; whatever is claimed is vacuously true
    gram = np.array([[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0], [1.0, -1.0, 1.0]])
    found = float(dual_bound(gram, [0.9, 0.9], 0.3, 1.0))
    assert -1.0 <= found <= 1.0


@pytest.mark.parametrize("rho", [1e-3, 0.5, 2.0, 5.0])
def test_dependent_directions_are_no_obstacle(rho: float) -> None:
    """The same direction twice, and bounds near the edge of what is possible, at small and large shifts."""
    s = np.concatenate([np.linspace(-1, 1, 21), 1 - 10.0 ** -np.arange(3, 16)])
    gram = np.array([[1.0, -1.0, -1.0], [-1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]])
    found = dual_bound(gram, np.stack([s, s], axis=1), rho, 1.0)
    exact = -projection_bound(s, rho, 1.0)
    assert np.all(found >= exact - 1e-11)
    moderate = np.abs(s) < 0.95
    np.testing.assert_allclose(found[moderate], exact[moderate], atol=2e-2 if rho > 3 else 1e-4)


def test_shapes_broadcast() -> None:
    gram = np.eye(3)
    assert dual_bound(gram, [0.1, 0.2], [0.1, 0.2, 0.3], 1.0).shape == (3,)
    assert dual_bound(gram, np.zeros((4, 1, 2)), [0.1, 0.2], 1.0).shape == (4, 2)
    weights, needed = dual_direction(np.broadcast_to(gram, (4, 3, 3)), [0.1, 0.2], 0.3, 1.0)
    assert weights.shape == (4, 2) and needed.shape == (4,)


@pytest.mark.parametrize(
    ("gram", "lower", "message"),
    [
        (np.eye(3), [0.1], "must be"),
        (2 * np.eye(2), [0.1], "outside"),
        (0.5 * np.eye(2), [0.1], "diagonal"),
        ([[1.0, 0.3], [0.1, 1.0]], [0.1], "symmetric"),
        (np.eye(2), [np.nan], "outside"),
        (np.full((2, 2), np.nan), [0.1], "outside"),
    ],
)
def test_numbers_that_are_no_problem_are_errors(gram: object, lower: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dual_bound(gram, lower, 0.1, 1.0)  # type: ignore[arg-type]


ANGLES = st.floats(0.05, 1.5)


@settings(max_examples=60)
@given(
    st.floats(0.3, 0.99),
    ANGLES,
    st.floats(-0.3, 0.3),
    st.sampled_from([0.1, 0.5, 1.2]),
    st.sampled_from([0.0, -0.4, 0.3]),
)
def test_direction_implies_the_claim_and_finds_it(
    norm: float, angle: float, pilot_error: float, rho: float, level: float
) -> None:
    """With m known exactly, the direction proves the claim where the dual bound does, and nowhere else."""
    w, m = np.array([0.0, 1.0]), norm * np.array([np.cos(angle), -np.sin(angle)])
    v = np.array([np.cos(angle + pilot_error), -np.sin(angle + pilot_error)])
    vectors = np.stack([w, -w, v])
    gram, s = vectors @ vectors.T, vectors[1:] @ m
    weights, needed = dual_direction(gram, s, rho, 1.0, level)
    q = weights @ vectors[1:]
    assert np.linalg.norm(q) == pytest.approx(1.0, abs=1e-9)
    proved = q @ m >= needed
    if proved:
        # q is one direction with one known projection: the general bound must confirm it
        single = np.array([[1.0, w @ q], [w @ q, 1.0]])
        assert float(dual_bound(single, [min(1.0, q @ m)], rho, 1.0)) <= level + 2e-5
    if float(dual_bound(gram, np.clip(s, -1, 1), rho, 1.0)) < level - 1e-3:
        assert proved


@pytest.mark.parametrize("rho", [0.2, 0.9])
def test_direction_of_the_pilot_alone(rho: float) -> None:
    g = np.linspace(-0.95, 0.95, 39)
    gram = np.array([[np.ones(39), g], [g, np.ones(39)]]).transpose(2, 0, 1)
    weights, needed = dual_direction(gram, np.full((39, 1), 0.5), rho, 1.0)
    np.testing.assert_allclose(weights, 1.0)
    for s in (0.3, 0.6, 0.9, 0.99):
        proved, bound = s >= needed, dual_bound(gram, np.full((39, 1), s), rho, 1.0)
        assert np.all(bound[proved] <= 2e-5)
        assert np.all(bound[~proved] >= -2e-3)


@pytest.mark.parametrize("rho", [0.0, 1e-6, 1e-4, 1e-3, 1e-2])
def test_thresholds_at_small_shifts(rho: float) -> None:
    """Without a shift, "<m, w> < 0" follows from <m, v> >= sqrt(1 - g^2) alone; a small shift hardly adds to that.

    The threshold of one direction is min over its length k of (E||L w + k v|| - level)/k. L has the standard deviation
    sqrt(exp(rho^2) - 1), so the threshold lies within that of its value without a shift.
    """
    g = np.array([-0.99, -0.9, -0.6, -0.3, -0.1, -0.03, -0.003])
    gram = np.array([[np.ones(7), g], [g, np.ones(7)]]).transpose(2, 0, 1)
    _, needed = dual_direction(gram, np.full((7, 1), 0.9), rho, 1.0)
    still = np.sqrt(1 - g**2)
    assert np.all(needed >= still - 1e-12)
    assert np.all(needed <= still + np.sqrt(np.expm1(max(rho, 1e-6) ** 2)) + 1e-5)
    # the same from two directions, of which one says nothing
    both = np.array([[np.ones(7), -np.ones(7), g], [-np.ones(7), np.ones(7), -g], [g, -g, np.ones(7)]])
    estimates = np.stack([0.02 + 0 * g, still + 0.02], axis=1)
    weights, needed = dual_direction(both.transpose(2, 0, 1), np.minimum(estimates, 1.0), rho, 1.0)
    reached = np.einsum("nk,nk->n", weights, np.minimum(estimates, 1.0))
    assert np.all(reached[:5] >= needed[:5])


def test_direction_with_w_outside_the_span_of_the_others() -> None:
    generator = np.random.default_rng(7)
    vectors = unit(generator.normal(size=(50, 3, 6)))
    vectors[:, 1] = unit(-2 * vectors[:, 0] + vectors[:, 1])
    m = 0.8 * unit(vectors[:, 1] + 0.3 * generator.normal(size=(50, 6)))
    gram, s = vectors @ vectors.swapaxes(1, 2), np.einsum("nkd,nd->nk", vectors[:, 1:], m)
    weights, needed = dual_direction(gram, s, 0.3, 1.0)
    reached = np.einsum("nk,nk->n", weights, s) >= needed
    bound = dual_bound(gram, s, 0.3, 1.0)
    assert reached.sum() > 10
    # signs of the multipliers are free for a fixed direction, so it may prove more than the bound; hardly less
    assert np.all(reached[bound < -5e-3])


def test_direction_at_the_ends() -> None:
    gram = np.array([[1.0, -1.0], [-1.0, 1.0]])
    _, trivial = dual_direction(gram, [0.5], 0.3, 1.0, 1.0)
    _, impossible = dual_direction(gram, [0.5], 0.3, 1.0, -1.0)
    _, too_far = dual_direction(gram, [0.5], 1e3, 1.0)
    assert float(trivial) <= -1 and float(impossible) > 1 and float(too_far) > 1
    weights, needed = dual_direction(gram, [0.5], 0.0, 1.0, -0.25)
    assert float(weights[0]) == pytest.approx(1.0)
    assert float(needed) == pytest.approx(0.25, abs=1e-5)
    with pytest.raises(ValueError, match="level"):
        dual_direction(gram, [0.5], 0.3, 1.0, 1.5)


def test_t3_is_t4_with_the_feature_itself() -> None:
    """Known m: the angle that T3 certifies is the one at which T4's bound changes sign."""
    for norm, rho in [(0.6, 0.4), (0.9, 1.0)]:
        psi = float(np.arccos(angular_bound(norm, rho, 1.0)))
        for angle, certified in [(psi + 1e-3, True), (psi - 1e-3, False)]:
            gram = np.array([[1.0, -np.sin(angle)], [-np.sin(angle), 1.0]])
            both = np.array(
                [
                    [1.0, -1.0, -np.sin(angle)],
                    [-1.0, 1.0, np.sin(angle)],
                    [-np.sin(angle), np.sin(angle), 1.0],
                ]
            )
            bound = float(dual_bound(both, [norm * np.sin(angle), norm], rho, 1.0))
            assert (bound < 0) == certified
            assert float(dual_bound(gram, [norm], rho, 1.0)) >= bound - 1e-6
