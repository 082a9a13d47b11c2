"""The vote and the percentile (T9) against Cohen's formula, exact binomials and brute force over encoders."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import binomtest, norm

from smoothcert.certificates import (
    PERCENTILE_SHIFTS,
    percentile_radius,
    percentile_share,
    projection_bound,
    shifted_percentile,
    shifted_percentile_radius,
    vote_radius,
    vote_reach,
)


@pytest.mark.parametrize("draws", [100, 300, 1000])
def test_the_vote_is_cohens(draws: int) -> None:
    """R = sigma Phi^-1(p) with p from the two-sided exact interval at 2 alpha, as his published code has it."""
    for hits in (draws // 2, int(0.7 * draws), int(0.99 * draws), draws):
        p = binomtest(hits, draws).proportion_ci(confidence_level=1 - 2e-3, method="exact").low
        found = float(vote_radius(p, 0.25))
        expected = 0.25 * norm.ppf(p)
        if p <= 0.5:
            assert np.isnan(found)
        else:
            assert found == pytest.approx(expected, rel=1e-12) and found <= expected
    assert float(vote_reach(draws, 1e-3, 0.25)) == pytest.approx(float(vote_radius(p, 0.25)), rel=1e-9)


def test_the_vote_abstains() -> None:
    found = vote_radius([0.0, 0.3, 0.5, np.nextafter(0.5, 1), 1.0], 0.5)
    assert np.isnan(found[:3]).all() and found[3] >= 0 and np.isfinite(found[4])
    assert float(vote_reach(3, 0.5, 1.0)) == pytest.approx(float(ndtri(0.5 ** (1 / 3))), rel=1e-12)
    assert float(vote_reach(1, 0.5, 1.0)) == pytest.approx(0.0, abs=1e-12)


def test_the_vote_is_t1_of_the_indicator() -> None:
    p = np.linspace(0.501, 0.9999, 50)
    radius = vote_radius(p, 0.25)
    still = projection_bound(2 * p - 1, radius, 0.25)
    assert np.all(still >= -1e-9) and np.all(still <= 1e-9)


def test_the_percentile_of_the_median_is_the_vote() -> None:
    p = np.array([0.2, 0.5, 0.6, 0.99, 1 - 1e-9])
    np.testing.assert_allclose(percentile_radius(p, 0.5, 0.3), vote_radius(p, 0.3), rtol=1e-9, equal_nan=True)
    np.testing.assert_allclose(percentile_share(0.5, 0.3, 0.3), ndtr(-1.0), rtol=1e-10)


def test_percentile_share_and_radius_agree() -> None:
    """The share that a radius leaves, handed back as an exceedance, has that radius."""
    q, radius = np.array([0.05, 0.3, 0.5, 0.9]), np.array([[0.01], [0.2], [0.7]])
    share = percentile_share(q, radius, 0.25)
    np.testing.assert_allclose(
        percentile_radius(1 - share, q, 0.25), np.broadcast_to(radius, (3, 4)), rtol=1e-6
    )
    assert np.all(percentile_radius(1 - share, q, 0.25) <= radius * (1 + 1e-9))  # 1 - share rounds too


def test_percentiles_hold_under_every_shift_of_piecewise_scores() -> None:
    """Random scores of a noise on a line: the quantile at every shift is at least what the shares at 0 say.

    20,000 scores with ties, 8 shifts in both directions, exact masses; nothing here is left to chance.
    """
    generator = np.random.default_rng(0)
    count, pieces = 20_000, 6
    scale = generator.uniform(0.3, 2.5, (count, 1))
    inner = np.sort(generator.normal(0, scale, (count, pieces - 1)), axis=1)
    edges = np.concatenate([np.full((count, 1), -np.inf), inner, np.full((count, 1), np.inf)], axis=1)
    scores = generator.integers(0, 5, (count, pieces)).astype(float)
    monotone = np.arange(count) % 2 == 0
    scores[monotone] = np.sort(scores[monotone], axis=1)
    levels = np.arange(5.0)

    def at_least(shift: float) -> np.ndarray:
        mass = np.diff(ndtr(edges - shift), axis=1)
        return np.minimum(np.einsum("ep,epl->el", mass, scores[:, :, None] >= levels), 1.0)

    def quantile(shift: float, q: float) -> np.ndarray:
        """inf{y: P(Y <= y) >= q}."""
        at_most = 1 - np.concatenate([at_least(shift)[:, 1:], np.zeros((count, 1))], axis=1)
        return np.argmax(at_most >= q - 1e-12, axis=1).astype(float)

    said = nearly = 0
    for q in (0.2, 0.5, 0.8):
        for rho in (0.05, 0.3, 0.7, 1.5):
            share = float(percentile_share(q, rho, 1.0))
            ok = 1 - at_least(0.0) < share - 1e-12
            bound = np.where(ok.any(axis=1), 4 - np.argmax(ok[:, ::-1], axis=1), np.nan)
            radius = percentile_radius(at_least(0.0), q, 1.0)
            for shift in (rho, -rho):
                truth = quantile(shift, q)
                assert np.all((bound <= truth)[~np.isnan(bound)])
                covered = radius >= rho
                assert np.all((truth[:, None] >= levels)[covered])
                said += int(np.isfinite(bound).sum())
                nearly += int((bound == truth).sum())
    assert said > 100_000 and nearly > said // 3


@pytest.mark.parametrize("q", [0.0, 1.0, -0.1, 1.5, np.nan])
def test_percentiles_outside_the_open_interval_are_errors(q: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile_share(q, 0.1, 1.0)
    with pytest.raises(ValueError, match="percentile"):
        percentile_radius(0.9, q, 1.0)


def test_shares_outside_the_unit_interval_are_errors() -> None:
    with pytest.raises(ValueError, match="share_lcb=1.0000000001"):
        vote_radius(1.0000000001, 0.1)
    with pytest.raises(ValueError, match="draws"):
        vote_reach(0, 0.1, 1.0)
    with pytest.raises(ValueError, match="exceedance_lcb"):
        percentile_radius(np.nan, 0.5, 1.0)


def test_a_shifted_percentile_is_the_kept_bound_of_the_next_larger_shift() -> None:
    sigma, shifts = 0.4, np.array(PERCENTILE_SHIFTS)
    assert np.all(np.diff(shifts) > 0) and shifts[0] == 0
    quantiles = np.array([0.9 - 0.05 * j if j < 20 else -1.0 for j in range(len(shifts))])
    radii = np.array([0.0, 0.01, 0.05, 0.05 * 3, 0.15001, 1.0, 1.0001, 5.0])
    expected = []
    for radius in radii:
        later = [q for s, q in zip(shifts, quantiles, strict=True) if s * sigma >= radius * (1 - 1e-12)]
        expected.append(later[0] if later and later[0] > -1 else np.nan)
    np.testing.assert_array_equal(shifted_percentile(quantiles, radii, sigma), expected)
    np.testing.assert_array_equal(shifted_percentile(quantiles[None], radii[:, None], sigma)[:, 0], expected)
    for level in (0.9, 0.87, 0.0, -0.9):
        radius = float(shifted_percentile_radius(quantiles, level, sigma))
        within = [s * sigma for s, q in zip(shifts, quantiles, strict=True) if q >= level]
        assert radius == pytest.approx(max(within), rel=1e-12) and radius <= max(within)
        assert float(shifted_percentile(quantiles, radius, sigma)) >= level
    assert np.isnan(shifted_percentile_radius(quantiles, 0.91, sigma))
    assert np.isnan(shifted_percentile(np.full(len(shifts), -1.0), 0.0, sigma))
    # a score that noise does not move is kept as far as is looked
    assert float(shifted_percentile_radius(np.ones(len(shifts)), 1.0, sigma)) == pytest.approx(3 * sigma)


def test_quantiles_of_another_length_or_range_are_errors() -> None:
    for wrong, words in (([0.5] * 3, "needs 25"), ([1.5] * 25, "quantiles=1.5"), (0.5, "needs 25")):
        with pytest.raises(ValueError, match=words):
            shifted_percentile(wrong, 0.1, 1.0)
    with pytest.raises(ValueError, match="radius"):
        shifted_percentile([0.5] * 25, -0.1, 1.0)
    with pytest.raises(ValueError, match="level"):
        shifted_percentile_radius([0.5] * 25, -1.0, 1.0)
