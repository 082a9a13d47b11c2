"""Sequential tests with bets chosen on the pilot: the formula computed slowly, cuts, levels, nothing else changed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from smoothcert.statistics import CERTIFIED, REFUTED, SequentialTest, choose_bets


def slowly(pilot: np.ndarray, draws: np.ndarray, alpha: float, m0: float, weights: np.ndarray) -> list[float]:
    """Log capitals against "the mean is below m0" after every draw."""
    n0, mean, squares = len(pilot), pilot.mean(), len(pilot) * pilot.var()
    seen: list[float] = []
    capital, logs = np.array(weights, dtype=float), []
    for i, y in enumerate(draws, start=1):
        variance = (squares + 0.0625) / (n0 + len(seen) + 0.25)
        stake = math.sqrt(2 * math.log(1 / alpha) / (variance * i * math.log(1 + i)))
        capital *= [1 + min(stake, c / m0) * (y - m0) for c in (0.5, 0.9, 0.99)]
        squares += (y - (n0 * mean + math.fsum(seen)) / (n0 + len(seen))) ** 2
        seen.append(float(y))
        logs.append(math.log(capital.sum()))
    return logs


@pytest.mark.parametrize("cuts", [[50], [1, 20, 29], [7, 0, 43]])
def test_the_formula_however_draws_are_cut(cuts: list[int]) -> None:
    generator = np.random.default_rng(0)
    pilot, draws = generator.beta(5, 2, (2, 30)), generator.beta(5, 2, (2, 50))
    bets = choose_bets(pilot, 1e-6, 50)
    thresholds = np.array([[0.6, 0.65]])
    test = SequentialTest(thresholds, 1e-6, 1e-9)
    test.reset([0], thresholds, bets)
    start = 0
    for n in cuts:
        test.update(draws.T[None, start : start + n], slots=[0], counts=[n])
        start += n
    for i in range(2):
        expected = slowly(pilot[i], draws[i], 1e-6, thresholds[0, i], bets.weights[i])[-1]
        assert float(test.log_e_values[0, i]) == pytest.approx(expected, rel=1e-9)


def test_without_bets_nothing_changes() -> None:
    """Slots without bets, beside slots with them or after them, are what they are in a test without any."""
    generator = np.random.default_rng(1)
    draws, thresholds = generator.beta(5, 2, (3, 60, 2)), np.full((3, 2), 0.62)
    plain, mixed = SequentialTest(thresholds, 0.01), SequentialTest(thresholds, 0.01)
    bets = choose_bets(generator.beta(5, 2, (2, 20)), 0.01, 60)
    mixed.reset([1], thresholds[:1], bets)
    mixed.reset([2], thresholds[:1], bets)
    mixed.reset([2], thresholds[:1])
    for test in (plain, mixed):
        test.update(draws[:, :25], slots=[0, 1, 2], counts=[25, 25, 25])
        test.update(draws[:, 25:], slots=[0, 1, 2], counts=[35, 35, 35])
    for row in (0, 2):
        assert np.array_equal(plain.log_e_values[row], mixed.log_e_values[row])
        assert np.array_equal(plain.decisions[row], mixed.decisions[row])
    assert not np.array_equal(plain.log_e_values[1], mixed.log_e_values[1])


def test_levels_and_power() -> None:
    """At the null at most alpha certify at any time; a binomial count fails a sound test with probability below 1e-7.

    Well above it fewer draws are needed than without bets, where the scores vary little.
    """
    generator = np.random.default_rng(2)
    slots, alpha = 3000, 0.05
    pilot = generator.beta(72, 8, (slots, 30))
    thresholds = np.full((slots, 1), 0.9)
    test = SequentialTest(thresholds, alpha, 0.05)
    test.reset(range(slots), thresholds, choose_bets(pilot, alpha, 200))
    test.update(generator.beta(72, 8, (slots, 200, 1)), slots=range(slots), counts=[200] * slots)
    assert binom.sf(int(np.sum(test.decisions == CERTIFIED)) - 1, slots, alpha) > 1e-7
    assert binom.sf(int(np.sum(test.decisions == REFUTED)) - 1, slots, 0.05) > 1e-7
    thresholds = np.full((slots, 1), 0.8)
    draws, decided = generator.beta(72, 8, (slots, 60, 1)), {}
    for name, bets in (("plain", None), ("primed", choose_bets(pilot, 1e-3, 200))):
        test = SequentialTest(thresholds, 1e-3)
        test.reset(range(slots), thresholds, bets)
        test.update(draws, slots=range(slots), counts=[60] * slots)
        decided[name] = int(np.sum(test.decisions == CERTIFIED))
    assert decided["primed"] > decided["plain"]


def test_what_is_no_score_still_decides_nothing() -> None:
    thresholds = np.array([[0.1]])
    test = SequentialTest(thresholds, 0.5)
    test.reset([0], thresholds, choose_bets(np.full((1, 9), 0.9), 0.5, 9))
    test.update(np.array([[[math.nan], [1.0], [1.0]]]), slots=[0], counts=[3])
    assert test.decisions[0, 0] == 0 and test.log_e_values[0, 0] == -math.inf
    test.reset([0], thresholds, choose_bets(np.full((1, 9), 0.9), 0.5, 9))
    test.update(np.ones((1, 9, 1)), slots=[0], counts=[9])
    assert test.decisions[0, 0] == CERTIFIED
    with pytest.raises(ValueError, match="bets has 2 rows"):
        test.reset([0], thresholds, choose_bets(np.full((2, 9), 0.9), 0.5, 9))
