"""T5, T6, similarities and the deployment gap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri

from smoothcert.certificates import (
    angular_bound,
    clean_reference_bound,
    deployment_gap,
    fcsb,
    large_radius_bound,
    projection_bound,
    similarity_bound,
)


def test_clean_reference_adds_angles() -> None:
    norm, clean, rho = 0.9, 0.88, 0.5
    psi = np.arccos(angular_bound(norm, rho, 1.0))
    expected = np.cos(np.arccos(clean / 0.95) + psi)
    found = float(clean_reference_bound(clean, norm, rho, 1.0, smooth_norm_upper=0.95))
    assert found == pytest.approx(float(expected), abs=1e-12)
    # without an upper bound of N, 1 stands for it
    loose = float(clean_reference_bound(clean, norm, rho, 1.0))
    assert loose == pytest.approx(float(np.cos(np.arccos(clean) + psi)), abs=1e-12)


@given(st.floats(-1, 1), st.floats(0, 1), st.sampled_from([0.0, 0.1, 0.5, 1.3]))
def test_clean_reference_is_never_below_t2(clean: float, norm: float, rho: float) -> None:
    found = float(np.nan_to_num(clean_reference_bound(clean, norm, rho, 1.0), nan=-1))
    score = (1 + clean) / 2
    t2 = float(np.nan_to_num(fcsb(score, rho, 1.0), nan=-1))
    # S rounds a clean projection of nearly 0 or 1 to exactly that, where T2 jumps
    assert found >= t2 - 1e-12 or abs(t2) < 1e-12 or score == 1 != clean


def test_clean_reference_is_vacuous_where_nothing_is_known() -> None:
    assert np.isnan(clean_reference_bound(-0.3, 0.9, 0.1, 1.0))
    assert np.isnan(clean_reference_bound(0.1, -0.2, 0.4, 1.0))
    assert np.isnan(clean_reference_bound(0.5, 0.5, 50.0, 1.0))
    with pytest.raises(ValueError, match="smooth_norm_upper"):
        clean_reference_bound(0.5, 0.5, 0.1, 1.0, smooth_norm_upper=0.0)


def test_staircase_with_one_step_is_t1_on_the_indicator() -> None:
    # <u, v> is 1 with probability p, else -1: one threshold at 1 loses nothing
    p = np.array([0.7, 0.9, 0.999])
    found = large_radius_bound(p[:, None], [1.0], 0.3, 1.0)
    expected = projection_bound(2 * p - 1, 0.3, 1.0)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_staircase_lives_on_where_t3_is_vacuous() -> None:
    # features near v with probability 0.999, N about 0.9: T3 is vacuous at rho = 2, T6 is not
    levels = np.linspace(0.0, 0.9, 10)
    found = float(large_radius_bound(np.full(10, 0.999), levels, 2.0, 1.0))
    assert np.isnan(angular_bound(0.9, 2.0, 1.0))
    assert found > 0.5


def test_staircase_against_hand_computation() -> None:
    found = float(large_radius_bound([0.99, 0.9], [0.0, 0.8], 0.0, 1.0))
    assert found == pytest.approx(-1 + 1.0 * 0.99 + 0.8 * 0.9, abs=1e-12)
    # an event inside another is never the likelier one
    assert float(large_radius_bound([0.5, 0.99], [0.0, 0.8], 0.0, 1.0)) == pytest.approx(
        -1 + 1.8 * 0.99, abs=1e-12
    )


def test_staircase_ends_before_the_quantile_of_its_first_step() -> None:
    """One step at c with probability p reaches 0 where Phi(Phi^-1(p) - rho) = 1/(1+c), not at rho = Phi^-1(p).

    The bound is exact: features at c with probability p and at -1 else, cut by a threshold, attain it.
    """
    p, c = 0.999, 0.5
    end = float(ndtri(p) - ndtri(1 / (1 + c)))
    assert float(large_radius_bound([p], [c], end - 1e-6, 1.0)) == pytest.approx(0.0, abs=1e-5)
    assert np.isnan(large_radius_bound([p], [c], end + 1e-6, 1.0))
    rho = float(ndtri(p)) - 0.01
    attained = -1 + (1 + c) * float(ndtr(ndtri(p) - rho))
    assert rho > end and attained < 0


def test_staircase_is_vacuous_below_zero() -> None:
    assert np.isnan(large_radius_bound([0.4], [0.5], 0.1, 1.0))
    assert np.isnan(large_radius_bound([0.0, 0.0], [0.5, 0.6], 0.0, 1.0))
    assert float(large_radius_bound([1.0], [0.9], 30.0, 1.0)) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("p", "levels", "message"),
    [
        ([0.5, np.nan], [0.1, 0.2], "exceedance"),
        ([0.5, 0.4], [0.2, 0.1], "increasing"),
        ([0.5], [0.1, 0.2], "last axis"),
        ([0.5], [1.2], "thresholds"),
    ],
)
def test_staircases_that_make_no_sense_are_errors(p: list[float], levels: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        large_radius_bound(p, levels, 0.1, 1.0)


def test_deployment_gap_holds_in_simulation() -> None:
    """Means of unit features in the plane, 20,000 deployments each; false failure below 1e-6 by Chernoff."""
    generator = np.random.default_rng(0)
    for spread, draws, beta in [(0.3, 16, 0.05), (2.0, 64, 0.2), (1.0, 4, 0.5)]:
        angle = generator.normal(0, spread, (20_000, draws))
        m = np.exp(-(spread**2) / 2)
        distance = np.abs(np.exp(1j * angle).mean(axis=1) - m)
        gap = float(deployment_gap(m, draws, beta))
        assert np.mean(distance > gap) <= beta


def test_deployment_gap_by_hand() -> None:
    # many draws: Bernstein; few: the root mean square and McDiarmid
    found = float(deployment_gap(0.99, 1000, 0.001))
    assert found == pytest.approx(
        np.sqrt(2 * 0.0199 * np.log(2000) / 1000) + 4 * np.log(2000) / 3000, rel=1e-12
    )
    assert found == pytest.approx(0.0275, abs=5e-5)
    few = float(deployment_gap(0.8, 4, 0.5))
    assert few == pytest.approx(0.3 + np.sqrt(2 * np.log(2) / 4), rel=1e-12)
    assert float(deployment_gap(1.0, 10, 1.0)) == 0.0
    assert float(deployment_gap(0.0, 1, 1e-9)) == 2.0
    assert float(deployment_gap(-0.2, 50, 0.1)) == float(deployment_gap(0.0, 50, 0.1))
    for arguments in [(1.1, 10, 0.1), (0.5, 0, 0.1), (0.5, 10, 0.0), (0.5, 10, np.nan)]:
        with pytest.raises(ValueError, match="is outside"):
            deployment_gap(*arguments)


def test_deployment_gap_counts_at_the_attacked_input() -> None:
    """An encoder that agrees at x and scatters at x + delta: the row's own N would promise too little.

    Features are e for z < 1.6 and evenly spread over the circle beyond: m is Phi(1.6) e at x, and Phi(0) e at a shift
    of 1.6. 20,000 deployments; the gap is missed far more rarely than beta, so that chance fails this test with
    probability below 1e-6.
    """
    generator = np.random.default_rng(1)
    norm, rho, draws, beta = float(ndtr(1.6)), 1.6, 400, 0.01
    noise = generator.normal(rho, 1, (20_000, draws))
    features = np.where(noise < 1.6, 1.0, np.exp(2j * np.pi * generator.random(noise.shape)))
    distance = np.abs(features.mean(axis=1) - 0.5)
    gap = float(deployment_gap(norm, draws, beta, radius=0.4, sigma=0.25))
    assert np.mean(distance > gap) <= beta
    assert (
        gap
        == float(deployment_gap(projection_bound(norm, rho, 1.0), draws, beta))
        > deployment_gap(norm, draws, beta)
    )
    # what it costs to know nothing of N there
    assert gap <= float(deployment_gap(0.0, draws, beta))


def test_errors_show_all_digits() -> None:
    with pytest.raises(ValueError, match="robustness_score=1.0000000001 is outside"):
        fcsb(1.0000000001, 0.1, 1.0)


def test_a_similarity_never_falls_further_than_its_own_bound_says() -> None:
    """T1 is T4 with one direction; a search over two that ends above it would also not be monotone."""
    rng = np.random.default_rng(0)
    s, norm = rng.uniform(-0.2, 0.3, 2000), rng.uniform(0.02, 0.4, 2000)
    alignment = rng.uniform(-0.9, 0.9, 2000)
    for rho in (0.005, 0.02, 0.05, 0.5):
        found = similarity_bound(s, norm, alignment, rho, 1.0)
        assert np.all(found >= projection_bound(s, rho, 1.0))
        # with more known, no less follows: what the audit rests on
        more = similarity_bound(s + 0.01, norm + 0.01, alignment, rho, 1.0)
        assert np.all(more >= found - 1e-7)
