"""The vote and the percentile (T9) against Cohen's formula, exact binomials and brute force over encoders."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import binomtest, norm

from smoothcert.certificates import (
    percentile_radius,
    percentile_share,
    projection_bound,
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
