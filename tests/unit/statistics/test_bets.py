"""Bets chosen on the pilot: the formula computed slowly, gaps as they were measured, and coverage."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom

from smoothcert.statistics import Bets, choose_bets, lower_bound

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def beta(mean: float, deviation: float) -> Draw:
    size = mean * (1 - mean) / deviation**2 - 1
    return lambda rng, shape: rng.beta(mean * size, (1 - mean) * size, shape)


def bernoulli(p: float) -> Draw:
    return lambda rng, shape: (rng.random(shape) < p).astype(float)


@pytest.mark.parametrize("fixed", [False, True])
def test_against_the_formula(fixed: bool) -> None:
    generator = np.random.default_rng(0)
    pilot, draws = generator.random((2, 9)), generator.beta(4, 2, (2, 40))
    bets = choose_bets(pilot, 0.05, 40, fixed=fixed)
    bound = lower_bound(draws, 0.05, bets=bets)
    for row in range(2):
        n0, mean, variance = 9, pilot[row].mean(), pilot[row].var()
        seen, stakes, squares = [], [], n0 * variance
        for i, y in enumerate(draws[row], start=1):
            guess = (squares + 0.0625) / (n0 + len(seen) + 0.25)
            counted = 40 if fixed else i * math.log(1 + i)
            stakes.append(math.sqrt(2 * math.log(20) / (guess * counted)))
            squares += (y - (n0 * mean + math.fsum(seen)) / (n0 + len(seen))) ** 2
            seen.append(float(y))

        def rich(m: float, row: int = row, stakes: list[float] = stakes) -> bool:
            capital = np.asarray(bets.weights[row], dtype=float).copy()
            most = 0.0
            for y, stake in zip(draws[row], stakes, strict=True):
                capital *= [1 + min(stake, c / m) * (y - m) for c in (0.5, 0.9, 0.99)]
                most = max(most, float(capital.sum()))
            return most >= 20

        # looked at in blocks of eight draws, the bound may miss a peak of the capital between
        assert rich(float(bound[row]) - 1e-6)
        assert not rich(float(bound[row]) + 0.02)


@pytest.mark.parametrize(
    ("draw", "mean", "plain", "primed"),
    [
        (bernoulli(0.5), 0.5, 0.0874, 0.0546),
        (bernoulli(0.9), 0.9, 0.0488, 0.0375),
        (beta(0.75, 0.05), 0.75, 0.0078, 0.0068),
    ],
)
def test_gaps(draw: Draw, mean: float, plain: float, primed: float) -> None:
    """Mean gaps at 1,000 draws and alpha 0.001; 300 repetitions, each with a deviation below 30% of the gap: 5%."""
    generator = np.random.default_rng(1)
    pilot, draws = draw(generator, (300, 63)), draw(generator, (300, 1000))
    assert (mean - lower_bound(draws, 0.001)).mean() == pytest.approx(plain, rel=0.05)
    bets = choose_bets(pilot, 0.001, 1000, fixed=True)
    assert (mean - lower_bound(draws, 0.001, bets=bets)).mean() == pytest.approx(primed, rel=0.05)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize(
    ("draw", "mean"), [(bernoulli(0.5), 0.5), (bernoulli(0.97), 0.97), (beta(0.9, 0.02), 0.9)]
)
def test_coverage(fixed: bool, draw: Draw, mean: float) -> None:
    """At most alpha of 3,000 bounds miss; a sound method fails one of these six checks with probability below 1e-6."""
    generator = np.random.default_rng(2)
    pilot, draws = draw(generator, (3000, 20)), draw(generator, (3000, 150))
    bets = choose_bets(pilot, 0.05, 150, fixed=fixed)
    misses = int(np.sum(lower_bound(draws, 0.05, bets=bets) > mean))
    assert binom.sf(misses - 1, 3000, 0.05) > 1e-7


def test_a_misleading_pilot_costs_tightness_only() -> None:
    draws = bernoulli(0.6)(np.random.default_rng(3), (500, 200))
    for pilot in (np.zeros((500, 5)), np.ones((500, 5)), np.full((500, 60), 0.999)):
        bound = lower_bound(draws, 0.05, bets=choose_bets(pilot, 0.05, 200))
        assert binom.sf(int(np.sum(bound > 0.6)) - 1, 500, 0.05) > 1e-7


def test_equal_weights_are_the_default() -> None:
    """The weighted mean of the capitals, with equal weights and the default's stakes, is what it was."""
    draws = np.random.default_rng(4).beta(8, 2, (5, 300))
    assert np.array_equal(lower_bound(draws, 0.01), lower_bound(draws, 0.01, bets=None))
    low = np.full(5, 1e-6)
    assert choose_bets(np.full((1, 9), 0.9), 0.01, 100).weights[0, 2] == 0.85
    assert choose_bets(np.tile([0.0, 1.0], (1, 9)), 0.01, 100).weights[0, 2] == pytest.approx(1 / 3)
    assert np.all(lower_bound(draws, 0.01, bets=Bets(low, low, 1, np.full((5, 3), 1 / 3))) > 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: choose_bets(np.empty((2, 0)), 0.1, 10), "pilot"),
        (lambda: choose_bets(np.array([[1.2]]), 0.1, 10), "pilot"),
        (lambda: choose_bets(np.array([[0.5]]), 1.0, 10), "alpha"),
        (lambda: choose_bets(np.array([[0.5]]), 0.1, 0), "draws"),
        (lambda: Bets(np.array([0.5]), np.array([0.1]), 3, np.array([[0.5, 0.5, 0.5]])), "sum to 1"),
        (lambda: Bets(np.array([0.5]), np.array([np.nan]), 3, np.array([[1.0, 0.0, 0.0]])), "variance"),
        (
            lambda: lower_bound([[0.5]], 0.1, "hoeffding", bets=choose_bets(np.array([[0.5]]), 0.1, 9)),
            "betting",
        ),
        (lambda: lower_bound(np.ones((2, 3)), 0.1, bets=choose_bets(np.array([[0.5]]), 0.1, 9)), "2 rows"),
    ],
)
def test_bad_input_is_an_error(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
