"""Radii of predictions and ranks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm as normal

from smoothcert.certificates import angular_radius, dual_bound, margin_radius, rank_radius


def random_rows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Margins, norms and alignments that some m in the plane of w and v has."""
    generator = np.random.default_rng(seed)
    length, angle = generator.uniform(0.2, 0.99, count), generator.uniform(0.02, 1.5, count)
    pilot = angle + generator.normal(0, 0.2, count)
    return length * np.sin(angle), length * np.cos(angle - pilot), -np.sin(pilot)


def gram_of(alignment: float) -> np.ndarray:
    return np.array([[1, -1, alignment], [-1, 1, -alignment], [alignment, -alignment, 1]])


def test_the_margin_alone_is_cohens_radius() -> None:
    margin = np.linspace(0.05, 0.99, 20)
    # a pilot direction along the margin's own adds nothing
    found = margin_radius(margin, margin, -1.0, 0.5)
    np.testing.assert_allclose(found, 0.5 * normal.ppf((1 + margin) / 2), rtol=1e-9)


def test_one_margin_gives_the_same_as_in_an_array() -> None:
    margin, norm, alignment = random_rows(5, 3)
    rows = margin_radius(margin, norm, alignment, 0.5)
    for row in range(5):
        one = margin_radius(float(margin[row]), float(norm[row]), float(alignment[row]), 0.5)
        assert one.shape == ()
        np.testing.assert_allclose(one, rows[row], rtol=1e-4)  # both rounded down, by different searches


def test_radius_is_where_the_dual_bound_changes_sign() -> None:
    margin, norm, alignment = random_rows(25, 0)
    radius = margin_radius(margin, norm, alignment, 1.0)
    for row in range(25):
        known = [margin[row], norm[row]]
        assert float(dual_bound(gram_of(alignment[row]), known, radius[row] * 0.9995, 1.0)) < 0
        assert float(dual_bound(gram_of(alignment[row]), known, radius[row] * 1.002, 1.0)) > -1e-6


def test_direction_alone_is_where_its_dual_bound_changes_sign() -> None:
    _, norm, alignment = random_rows(40, 1)
    radius = margin_radius(None, norm, alignment, 1.0)
    assert 5 < np.isnan(radius).sum() < 35
    for row in range(40):
        gram = gram_of(alignment[row])[np.ix_([0, 2], [0, 2])]
        at = radius[row] * 0.9995 if np.isfinite(radius[row]) else 0.01
        bound = float(dual_bound(gram, [norm[row]], at, 1.0))
        assert (bound < 0) == np.isfinite(radius[row])
        if np.isfinite(radius[row]):
            assert float(dual_bound(gram, [norm[row]], radius[row] * 1.002, 1.0)) > -1e-6


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1))
def test_never_below_t1_nor_the_direction_alone(margin: float, norm: float, alignment: float) -> None:
    both = float(np.nan_to_num(margin_radius(margin, norm, alignment, 1.0)))
    classical = float(normal.ppf((1 + margin) / 2)) if margin > 0 else 0.0
    assert both >= min(classical, 6.0) * (1 - 1e-9) - 1e-12
    alone = float(np.nan_to_num(margin_radius(None, norm, alignment, 1.0)))
    assert both >= alone * (1 - 1e-4) - 1e-6


@given(st.integers(0, 10_000), st.floats(0.0, 0.1))
def test_grows_with_margin_norm_and_sigma(seed: int, more: float) -> None:
    margin, norm, alignment = (x[0] for x in random_rows(1, seed))
    base = float(np.nan_to_num(margin_radius(margin, norm, alignment, 1.0)))
    slack = 1e-4 * base + 1e-9
    for m, n in [(min(margin + more, 1.0), norm), (margin, min(norm + more, 1.0))]:
        assert float(np.nan_to_num(margin_radius(m, n, alignment, 1.0))) >= base - slack
    assert float(np.nan_to_num(margin_radius(margin, norm, alignment, 2.0))) == pytest.approx(
        2 * base, rel=1e-9
    )


def test_angular_radius_is_the_same_question() -> None:
    """A boundary at angle phi from m(x), the pilot being m(x) itself: T3 at cos(phi)."""
    norm, phi = 0.8, 0.7
    found = float(margin_radius(norm * np.sin(phi), norm, -np.sin(phi), 1.0))
    assert found == pytest.approx(float(angular_radius(norm, np.cos(phi), 1.0)), rel=1e-4)


def test_nothing_certified_is_nan() -> None:
    assert np.isnan(margin_radius(-0.2, 0.9, 0.3, 1.0))
    assert np.isnan(margin_radius(0.0, 0.0, -0.5, 1.0))
    assert np.isnan(margin_radius(None, 0.9, 0.1, 1.0))
    assert np.isnan(margin_radius(None, -0.5, -0.9, 1.0))


def test_shapes_and_ends() -> None:
    assert margin_radius(np.full((3, 1), 0.5), [0.6, 0.7], -0.8, 1.0).shape == (3, 2)
    assert margin_radius(np.zeros(0), np.zeros(0), np.zeros(0), 1.0).shape == (0,)
    assert float(margin_radius(1.0, 1.0, -1.0, 0.5)) == pytest.approx(3.0)
    assert float(margin_radius(0.5, 0.9, -0.6 - 1e-12, 1.0)) > 0
    # rounding may carry an inner product of unit vectors just outside [-1, 1]
    assert float(margin_radius(0.5, 0.5, -1.0 - 2e-16, 1.0)) > 0


@pytest.mark.parametrize(
    "arguments",
    [(np.nan, 0.5, -0.5, 1.0), (0.5, np.nan, -0.5, 1.0), (0.5, 0.5, -1.1, 1.0), (0.5, 0.5, -0.5, 0.0)],
)
def test_numbers_outside_the_domain_are_errors(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="is outside"):
        margin_radius(*arguments)


def test_rank_takes_the_kth_smallest_and_fails_closed() -> None:
    radii = np.array([[0.3, 0.1, 0.2], [0.3, np.nan, 0.2]])
    np.testing.assert_array_equal(rank_radius(radii, 1), [0.1, np.nan])
    np.testing.assert_array_equal(rank_radius(radii, 2), [0.2, 0.2])
    np.testing.assert_array_equal(rank_radius(radii, 3), [0.3, 0.3])
    assert float(rank_radius([0.3], 2)) == np.inf
    assert float(rank_radius(np.zeros(0), 1)) == np.inf


@pytest.mark.parametrize(("radii", "k"), [([0.1], 0), ([-0.1], 1)])
def test_ranks_that_make_no_sense_are_errors(radii: list[float], k: int) -> None:
    with pytest.raises(ValueError, match=r"k=0|negative"):
        rank_radius(radii, k)
