"""Capital at the limits of the stakes: from sums of powers, and from every draw by itself."""

from __future__ import annotations

import math

import numpy as np
import pytest

from smoothcert.statistics import choose_bets, lower_bound
from smoothcert.statistics.limit_capital import LimitCapital, PowerSums, limit_mean

FRACTIONS = (0.5, 0.9, 0.99)


def families(rng: np.random.Generator, n: int) -> np.ndarray:
    """(rows, n) draws of small variance: even, skewed to both sides, constant, drifting, with a jump."""
    rows = [
        rng.uniform(0.78, 0.84, n),
        0.9 - rng.exponential(0.01, n),
        0.3 + rng.exponential(0.005, n),
        np.full(n, 0.7),
        np.linspace(0.6, 0.65, n),
        np.where(np.arange(n) < n // 2, 0.8, 0.83),
        rng.normal(0.93, 0.004, n),
    ]
    return np.clip(np.stack(rows), 0.0, 1.0)


def log_capitals(draws: np.ndarray, m: float, weights: np.ndarray) -> list[float]:
    """After each draw, of gamblers who stake c/m."""
    logs = np.zeros(3)
    found = []
    for y in draws:
        logs += [math.log1p(c / m * (y - m)) for c in FRACTIONS]
        found.append(float(logs.max() + math.log(math.fsum(weights * np.exp(logs - logs.max())))))
    return found


@pytest.mark.parametrize("few", [True, False])
def test_the_series_is_at_most_the_logarithm_and_next_to_it(few: bool) -> None:
    draws = families(np.random.default_rng(0), 61)
    counts = np.array([61, 60, 57, 8, 33, 61, 5])
    weights = np.tile([0.05, 0.10, 0.85], (len(draws), 1))
    powers = PowerSums(draws, counts, few=few)
    capital = LimitCapital(powers, FRACTIONS, weights)
    usable = capital.usable()
    assert usable.sum() >= 5
    for factor in (0.5, 0.9, 0.98, 1.02):
        means = np.minimum(factor * powers.mean, 1.0)
        found = capital.largest_log(np.arange(len(draws)), means)
        for row, count in enumerate(counts):
            ends = sorted({*range(8, count, 8), int(count)})
            exact = log_capitals(draws[row, :count], float(means[row]), weights[row])
            most = max(exact[end - 1] for end in ends)
            assert found[row] <= most + 1e-11
            if usable[row]:
                # 2e-7 of a bound, at a slope of at most n/m
                assert found[row] >= most - 2.1e-7 * count / min(means[row], powers.mean[row])


@pytest.mark.parametrize("spread", [0.02, 0.2, 0.6])
def test_wide_draws_stay_below_the_logarithm_too(spread: float) -> None:
    rng = np.random.default_rng(1)
    draws = np.clip(0.6 + spread * (rng.random((20, 40)) - 0.7), 0.0, 1.0)
    weights = np.tile([0.1, 0.0, 0.9], (20, 1))
    capital = LimitCapital(PowerSums(draws, np.full(20, 40), few=True), FRACTIONS, weights)
    usable = capital.usable()
    means = draws.mean(axis=1) * rng.uniform(0.7, 1.0, 20)
    found = capital.largest_log(np.arange(20), means)
    for row in np.flatnonzero(draws.max(axis=1) - draws.mean(axis=1) < 0.5 * draws.mean(axis=1)):
        exact = log_capitals(draws[row], float(means[row]), weights[row])
        if usable[row] or np.abs(draws[row] / draws[row].mean() - 1).max() <= 0.5:
            assert found[row] <= max(exact[7::8]) + 1e-11
    assert usable.all() == (spread < 0.1)


@pytest.mark.parametrize("fixed", [True, False])
def test_no_stake_is_below_the_limit_that_is_promised(fixed: bool) -> None:
    rng = np.random.default_rng(2)
    for n in (9, 64, 300):
        draws = np.concatenate([families(rng, n), rng.beta(8, 2, (4, n)), np.eye(1, n)])
        pilot = np.concatenate([families(rng, 31), rng.beta(2, 8, (4, 31)), np.ones((1, 31))])
        bets = choose_bets(pilot, 0.001, n, fixed=fixed)
        powers = PowerSums(draws, np.full(len(draws), n), few=True)
        promised = limit_mean(powers, (bets.mean, bets.variance, 31), bets.horizon, 0.001, 0.99)
        exact = 0.99 / bets.stakes(draws, 0.001).min(axis=1)
        assert (promised >= exact).all()
        assert (promised[:7] <= 2.0 * exact[:7]).all()


@pytest.mark.parametrize("fixed", [True, False])
def test_bounds_are_those_of_every_draw_by_itself(fixed: bool) -> None:
    """The stakes' formula once more, the capital looked at every eighth draw and at the last, as the bound is."""
    rng = np.random.default_rng(3)
    n, alpha = 150, 0.01
    draws = families(rng, n)
    pilot = families(rng, 31)
    counts = np.array([n, n, 149, n, 120, n, 77])
    bets = choose_bets(pilot, alpha, n, fixed=fixed)
    bound = lower_bound(draws, alpha, counts=counts, bets=bets)
    given = bets.mean, bets.variance, bets.pilot_draws
    limits = limit_mean(PowerSums(draws, counts, few=True), given, bets.horizon, alpha, 0.99)
    assert (limits < bound).sum() >= 4
    stakes = bets.stakes(draws, alpha)

    def rich(row: int, m: float) -> bool:
        ends = {*range(8, counts[row], 8), int(counts[row])}
        capital = np.array(bets.weights[row])
        for i in range(counts[row]):
            capital *= [1 + min(stakes[row, i], c / m) * (draws[row, i] - m) for c in FRACTIONS]
            if i + 1 in ends and capital.sum() >= 1 / alpha:
                return True
        return False

    for row in range(len(draws)):
        assert rich(row, float(bound[row]))
        assert not rich(row, float(bound[row]) + 2e-6)


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("value", [0.0, 1e-300, 1e-9, 0.1, 1.0])
def test_equal_scores_however_small_divide_nothing_by_0(value: float, fixed: bool) -> None:
    """Nothing is divided by 0 on the way (a warning, so an error here), and a bound is that of every draw by itself."""
    for n, alpha in ((1, 1e-6), (9, 1e-3), (64, 1e-6)):
        draws = np.full((2, n), value)
        bets = choose_bets(draws, alpha, n, fixed=fixed)
        bound = float(lower_bound(draws, alpha, bets=bets)[0])
        stakes = bets.stakes(draws, alpha)[0]

        def most(m: float, stakes: np.ndarray = stakes, w: np.ndarray = bets.weights[0]) -> float:
            factors = [np.cumprod(1.0 + np.minimum(stakes, c / m) * (value - m)) for c in FRACTIONS]
            return float(np.max(w @ np.stack(factors)))

        assert bound <= value
        assert bound == 0.0 or most(bound) >= 1.0 / alpha
        assert bound + 2e-6 > 1.0 or most(bound + 2e-6) < 1.0 / alpha
