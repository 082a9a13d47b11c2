"""T1 and T2 against Cohen's formula, and what must be vacuous."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from smoothcert.certificates import fcsb, fcsb_radius, projection_bound

SCORES = st.floats(0.5, 1.0)
SIGMAS = st.floats(1e-3, 10.0)


def test_projection_moves_as_cohen_says() -> None:
    s = np.linspace(-0.99, 0.99, 41)
    expected = 2 * norm.cdf(norm.ppf((1 + s) / 2) - 0.7 / 0.5) - 1
    found = projection_bound(s, 0.7, 0.5)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert np.all(found <= expected + 1e-15)


def test_radius_is_cohens_at_cosine_zero() -> None:
    # a binary vote p = S against 1 - S: R = sigma (Phi^-1(p) - Phi^-1(1-p))/2 = sigma Phi^-1(p)
    p = np.array([0.6, 0.9, 0.99, 0.999])
    np.testing.assert_allclose(fcsb_radius(p, 0.0, 0.25), 0.25 * norm.ppf(p), rtol=1e-12)


def test_radius_of_the_papers_corollary() -> None:
    assert float(fcsb_radius(0.9, 0.5, 0.5)) == pytest.approx(
        0.5 * (norm.ppf(0.9) - norm.ppf(0.75)), rel=1e-12
    )


def test_negative_values_are_vacuous_not_negative() -> None:
    found = fcsb([0.3, 0.5, 0.6, 0.9], 0.5, 1.0)
    assert np.isnan(found[:3]).all()
    assert found[3] > 0
    assert np.isnan(fcsb_radius([0.2, 0.7], 0.5, 1.0)).all()


def test_no_shift_changes_nothing() -> None:
    assert float(fcsb(0.75, 0.0, 1.0)) == 0.5
    assert float(projection_bound(-0.25, 0.0, 1.0)) == -0.25


def test_constant_features_do_not_move() -> None:
    assert float(fcsb(1.0, 100.0, 0.1)) == 1.0
    assert float(projection_bound(-1.0, 3.0, 0.1)) == -1.0
    assert np.isfinite(fcsb_radius(1.0, 0.9, 0.1))


def test_projection_may_go_down_to_minus_one_but_not_below() -> None:
    found = projection_bound([-0.5, 0.0, 0.5], 50.0, 1.0)
    np.testing.assert_array_equal(found, -1.0)


@given(SCORES, st.floats(0, 5), st.floats(0, 5), SIGMAS)
def test_fcsb_falls_with_radius_and_grows_with_sigma(
    score: float, r1: float, r2: float, sigma: float
) -> None:
    low, high = sorted((r1, r2))
    near, far = np.nan_to_num(fcsb(score, [low, high], sigma), nan=-1.0)
    assert far <= near + 1e-13
    small, large = np.nan_to_num(fcsb(score, high, [sigma, 2 * sigma]), nan=-1.0)
    assert small <= large + 1e-13


@given(SCORES, st.floats(0, 0.99), SIGMAS)
def test_radius_and_bound_are_inverse(score: float, cosine: float, sigma: float) -> None:
    radius = float(fcsb_radius(score, cosine, sigma))
    if np.isnan(radius):
        assert 2 * score - 1 < cosine
        return
    back = float(np.nan_to_num(fcsb(score, radius, sigma), nan=0.0))
    assert back >= cosine - 1e-12
    if score < 1 - 1e-9:
        assert back == pytest.approx(cosine, abs=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda: fcsb(np.nan, 0.1, 1.0),
        lambda: fcsb(1.1, 0.1, 1.0),
        lambda: fcsb(0.9, -0.1, 1.0),
        lambda: fcsb(0.9, 0.1, 0.0),
        lambda: fcsb(0.9, np.nan, 1.0),
        lambda: fcsb(0.9, np.inf, 1.0),
        lambda: fcsb_radius(0.9, 1.5, 1.0),
        lambda: fcsb_radius(0.9, 0.5, np.inf),
        lambda: projection_bound(-1.5, 0.1, 1.0),
    ],
)
def test_numbers_outside_the_domain_are_errors(call: object) -> None:
    with pytest.raises(ValueError, match=r"(score|radius|sigma|cosine|projection)=.* is outside"):
        call()  # type: ignore[operator]
