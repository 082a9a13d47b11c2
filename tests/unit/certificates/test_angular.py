"""T3 against its extremal encoder, a direct solver of its dual, and the forms it improves on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import norm as normal

from smoothcert.certificates import angular_bound, angular_radius, fcsb

NORMS = st.floats(0.05, 0.9999)
SHIFTS = st.sampled_from([0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.75, 3.5])
# Tangents and grid leave this much room between neighbouring inputs (documented accuracy 2e-4).
GRAIN = 2e-4


@pytest.mark.parametrize(
    ("norm", "rho", "published"),
    [(0.5, 0.25, 0.9293), (0.7, 0.5, 0.8845), (0.9, 0.5, 0.9705), (0.9, 1.0, 0.8471), (0.99, 1.0, 0.9841)],
)
def test_the_table_of_the_theory(norm: float, rho: float, published: float) -> None:
    found = float(angular_bound(norm, 0.4 * rho, 0.4))
    assert np.floor(found * 1e4) / 1e4 == pytest.approx(published, abs=1e-9)


@pytest.mark.parametrize("rho", [0.01, 0.1, 0.5, 1.0, 2.0, 3.0, 3.5])
def test_the_extremal_encoder_attains_the_bound(rho: float, extremal) -> None:  # type: ignore[no-untyped-def]
    """Exact values lie above, by at most 2e-4; for moderate shifts the bound is attained to 1e-6."""
    high = 40 * max(rho, np.exp(rho**2) / 4)
    for a in np.geomspace(0.02 * min(rho, 1.0), high, 7):
        _, t, s = extremal(float(a), rho)
        norm, cosine = float(np.hypot(t, s)), float(t / np.hypot(t, s))
        if not 0.05 <= norm <= 0.9999:
            continue
        found = float(np.nan_to_num(angular_bound(norm, rho, 1.0), nan=0.0))
        assert found <= cosine + 1e-12
        assert cosine - found <= (1e-6 if rho <= 1.0 else 1e-4)


@pytest.mark.parametrize(("norm", "rho"), [(0.3, 0.2), (0.6, 0.5), (0.9, 1.0), (0.97, 1.5)])
def test_against_a_direct_solver_of_the_dual(norm: float, rho: float) -> None:
    """A general-purpose optimiser proves the certified angle, and cannot prove a slightly smaller one."""
    node, mass = np.polynomial.legendre.leggauss(15)
    edges = np.linspace(-9.0, 9.0, 101)
    z = (edges[:-1, None] + 0.09 * (1 + node)).ravel()
    weight = np.tile(0.09 * mass, 100) * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    ratio = np.exp(rho * z - rho**2 / 2)

    def best_of_dual(psi: float) -> float:
        towards = norm * np.array([np.cos(psi), -np.sin(psi)])

        def dual(multipliers: np.ndarray) -> tuple[float, np.ndarray]:
            a, b = multipliers
            length = np.sqrt(a * a + (ratio + b) ** 2)
            gradient = np.array([weight @ (a / length), weight @ ((ratio + b) / length)]) - towards
            return float(weight @ length - towards @ multipliers), gradient

        start = np.array([rho, -np.exp(0.8 * rho**2)])
        return float(minimize(dual, start, jac=True, method="BFGS", options={"gtol": 1e-10}).fun)

    certified = float(angular_bound(norm, rho, 1.0))
    assert best_of_dual(float(np.arccos(certified - 1e-6))) < 0
    assert best_of_dual(float(np.arccos(certified + 2e-5))) > 0


@given(NORMS, SHIFTS)
def test_at_least_as_good_as_the_older_forms(norm: float, rho: float) -> None:
    found = float(np.nan_to_num(angular_bound(norm, rho, 1.0), nan=0.0))
    arcsin = (2 * normal.cdf(rho) - 1) / norm
    if arcsin < 1:
        assert found >= np.sqrt(1 - arcsin**2) - GRAIN
    assert found >= float(np.nan_to_num(fcsb((1 + norm) / 2, rho, 1.0), nan=0.0)) - GRAIN


@given(NORMS, NORMS, SHIFTS, SHIFTS)
def test_monotone_in_norm_radius_and_sigma(n1: float, n2: float, r1: float, r2: float) -> None:
    (n1, n2), (r1, r2) = sorted((n1, n2)), sorted((r1, r2))
    grid = np.nan_to_num(angular_bound([[n1], [n2]], [[r1, r2]], 1.0), nan=0.0)
    assert grid[0, 0] <= grid[1, 0] + 1e-12 and grid[0, 1] <= grid[1, 1] + 1e-12
    assert grid[0, 1] <= grid[0, 0] + GRAIN and grid[1, 1] <= grid[1, 0] + GRAIN
    # only radius/sigma matters
    scaled = np.nan_to_num(angular_bound([n1, n2], 2 * r1, 2.0), nan=0.0)
    np.testing.assert_allclose(scaled, grid[:, 0], atol=GRAIN)


@settings(max_examples=40)
@given(NORMS, st.floats(0.0, 0.995))
def test_radius_and_bound_are_inverse(norm: float, cosine: float) -> None:
    radius = float(angular_radius(norm, cosine, 0.5))
    assume(radius > 1e-3)
    # more than 24 different shifts take the row-wise path
    around = radius * np.linspace(0.98, 1.0, 30)
    bounds = np.nan_to_num(angular_bound(norm, around, 0.5), nan=0.0)
    assert np.all(bounds >= cosine - GRAIN)
    beyond = float(
        np.nan_to_num(angular_bound(norm, np.full(30, radius * 1.002) + 1e-9 * np.arange(30), 0.5), nan=0.0)[
            0
        ]
    )
    assert beyond <= max(cosine, 2e-3)


def test_many_shifts_at_once_agree_with_one_at_a_time() -> None:
    generator = np.random.default_rng(3)
    norms, shifts = generator.uniform(0.05, 0.9999, 60), np.tile([0.05, 0.4, 1.1, 2.2, 3.4], 12)
    single = angular_bound(norms, shifts, 1.0)
    jitter = 1 + 1e-9 * np.arange(60)
    rowwise = angular_bound(norms, shifts * jitter, 1.0)
    np.testing.assert_allclose(np.nan_to_num(rowwise), np.nan_to_num(single), atol=GRAIN)


def test_the_ends() -> None:
    assert float(angular_bound(0.4, 0.0, 1.0)) == 1.0
    assert float(angular_bound(1.0, 2.0, 1.0)) == 1.0
    assert np.isnan(angular_bound(0.0, 0.1, 1.0))
    assert np.isnan(angular_bound(0.9999, 50.0, 1.0))
    # vacuous from N = 2 Phi(rho) - 1 on
    rho = 0.7
    edge = 2 * normal.cdf(rho) - 1
    assert np.isnan(angular_bound(edge - 1e-4, rho, 1.0))
    assert float(angular_bound(edge + 1e-3, rho, 1.0)) > 0
    assert float(angular_radius(0.9, 1.0, 1.0)) == 0.0
    assert np.isnan(angular_radius(0.0, 0.5, 1.0))
    assert float(angular_radius(1.0, 0.9, 0.5)) == pytest.approx(3.0)
    assert float(angular_radius(0.6, 0.0, 1.0)) == pytest.approx(normal.ppf(0.8), rel=2e-3)


def test_shapes_broadcast() -> None:
    assert angular_bound(np.full((3, 1), 0.9), [0.1, 0.2], 1.0).shape == (3, 2)
    assert angular_radius(np.full((3, 1), 0.9), [0.5, 0.8], 1.0).shape == (3, 2)
    assert angular_bound(0.9, 0.1, 1.0).shape == ()
    assert angular_bound(np.zeros(0), 0.1, 1.0).shape == (0,)


@pytest.mark.parametrize(
    "call",
    [
        lambda: angular_bound(np.nan, 0.1, 1.0),
        lambda: angular_bound(1.0001, 0.1, 1.0),
        lambda: angular_bound(-0.1, 0.1, 1.0),
        lambda: angular_bound(0.5, -1.0, 1.0),
        lambda: angular_radius(0.5, np.nan, 1.0),
        lambda: angular_radius(0.5, -0.1, 1.0),
        lambda: angular_radius(0.5, 0.5, -1.0),
    ],
)
def test_numbers_outside_the_domain_are_errors(call: object) -> None:
    with pytest.raises(ValueError, match="is outside"):
        call()  # type: ignore[operator]
