"""Coverage of the statistics: bounds miss, and tests certify wrongly, no more often than they promise.

Every check counts misses in independent repetitions with a fixed seed and rejects where a binomial variable at the
promised rate would reach the count with probability below ``FALSE_FAILURE / CHECKS``. So the whole file fails on
sound code with probability at most 1e-6, over the choice of seeds; nothing is retried. That the checks can fail is
shown by bounds that are wrong on purpose.

Not covered: draws that are dependent.
"""

import math

import numpy as np
import pytest
from scipy.stats import binom

from smoothcert.statistics import CERTIFIED, REFUTED, SequentialTest, ebh, lower_bound

FALSE_FAILURE = 1e-6
CHECKS = 400
"""At least the number of comparisons in this file (kept by the last test)."""

ALPHAS = (0.05, 0.01)
LENGTHS = (20, 100, 1000)
REPETITIONS = 2000
LOOKS = np.unique(np.geomspace(4, 1000, 12).astype(int))
"""Where the hostile observer computes a betting bound; sequential tests are watched at every draw."""

_made = 0


def misses_too_often(misses, repetitions, rate):
    """Whether a count is incompatible with a rate of at most ``rate``."""
    global _made
    _made += 1
    return float(binom.sf(int(misses) - 1, repetitions, rate)) < FALSE_FAILURE / CHECKS


def means_too_high(values, mean):
    """The same for averages of numbers in [0, 1]: P(average >= x) <= exp(-n KL(x, mean))."""
    global _made
    _made += 1
    x = min(float(np.mean(values)), 1.0 - 1e-12)
    if x <= mean:
        return False
    divergence = x * math.log(x / mean) + (1 - x) * math.log((1 - x) / (1 - mean))
    return len(values) * divergence > math.log(CHECKS / FALSE_FAILURE)


def beta(rng, mean, deviation, shape):
    size = mean * (1 - mean) / deviation**2 - 1
    return rng.beta(mean * size, (1 - mean) * size, shape)


# name -> (mean, draws). Rare low scores are what a bound from few draws must not overlook.
SCORES = {
    "beta_high": (0.988, lambda rng, shape: beta(rng, 0.988, 0.01, shape)),
    "beta_u_shaped": (0.5, lambda rng, shape: rng.beta(0.2, 0.2, shape)),
    "bernoulli_half": (0.5, lambda rng, shape: (rng.random(shape) < 0.5).astype(float)),
    "bernoulli_rare_failure": (0.97, lambda rng, shape: (rng.random(shape) < 0.97).astype(float)),
    "two_points": (0.9 * 0.98 + 0.1 * 0.2, lambda rng, shape: np.where(rng.random(shape) < 0.9, 0.98, 0.2)),
    "near_constant": (0.9, lambda rng, shape: 0.9 + 1e-6 * (rng.random(shape) - 0.5)),
}
VOTES = ("bernoulli_half", "bernoulli_rare_failure")


@pytest.fixture(scope="module")
def draws():
    """All repetitions of every kind of score; shorter samples are their beginnings."""
    return {
        name: make(np.random.default_rng([2026, number]), (REPETITIONS, LENGTHS[-1]))
        for number, (name, (_, make)) in enumerate(SCORES.items())
    }


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("name", SCORES)
def test_bounds_at_a_fixed_number_of_draws(draws, name, alpha):
    mean = SCORES[name][0]
    methods = ["betting", "empirical_bernstein", "hoeffding", *["clopper_pearson"] * (name in VOTES)]
    for n in LENGTHS:
        for method in methods:
            misses = (lower_bound(draws[name][:, :n], alpha, method) > mean).sum()
            assert not misses_too_often(misses, REPETITIONS, alpha), (method, n, misses)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("name", SCORES)
def test_betting_bounds_stopped_where_they_look_best(draws, name, alpha):
    rows = 600
    best = np.max([lower_bound(draws[name][:rows, :n], alpha) for n in LOOKS], axis=0)
    misses = (best > SCORES[name][0]).sum()
    assert not misses_too_often(misses, rows, alpha), misses


@pytest.mark.parametrize("name", SCORES)
def test_sequential_tests_watched_at_every_draw(draws, name):
    """At a threshold equal to the mean, certified and refuted are both mistakes; each has its level, per test."""
    mean, futility = SCORES[name][0], 0.02
    test = SequentialTest(np.full((REPETITIONS, 2), mean), ALPHAS, futility)
    done = 0
    for n in (*LENGTHS[:2], 400, 700, LENGTHS[-1]):
        part = np.repeat(draws[name][:, done:n, None], 2, axis=2)
        test.update(part, slots=range(REPETITIONS), counts=[n - done] * REPETITIONS)
        done = n
        for number, alpha in enumerate(ALPHAS):
            certified = (test.decisions[:, number] == CERTIFIED).sum()
            assert not misses_too_often(certified, REPETITIONS, alpha), (n, alpha, certified)
            refuted = (test.decisions[:, number] == REFUTED).sum()
            assert not misses_too_often(refuted, REPETITIONS, futility), (n, refuted)


def test_votes_are_bounded_as_tightly_as_their_level_allows(draws):
    """The exact bound misses a fair coin almost at its level: the counting of misses works."""
    misses = (lower_bound(draws["bernoulli_half"], 0.05, "clopper_pearson") > 0.5).sum()
    exact = binom.sf(binom.isf(0.05, 1000, 0.5), 1000, 0.5)  # the coarse grid of counts leaves 4.7%
    assert abs(misses - REPETITIONS * exact) < 6 * math.sqrt(REPETITIONS * exact)


# Bounds that are wrong, each in a way that an implementation could be: the checks above must reject them.


def test_rejects_bernstein_without_its_last_term(draws):
    x = draws["bernoulli_rare_failure"][:, :20]
    wrong = x.mean(axis=1) - np.sqrt(2 * x.var(axis=1, ddof=1) * math.log(2 / 0.01) / 20)
    assert misses_too_often((wrong > 0.97).sum(), REPETITIONS, 0.01)


def test_rejects_hoeffding_that_is_peeked_at(draws):
    x = draws["bernoulli_half"]
    counts = np.arange(1, x.shape[1] + 1)
    bound = np.cumsum(x, axis=1) / counts - np.sqrt(math.log(1 / 0.05) / (2 * counts))
    assert not misses_too_often((bound[:, -1] > 0.5).sum(), REPETITIONS, 0.05)
    assert misses_too_often((bound.max(axis=1) > 0.5).sum(), REPETITIONS, 0.05)


def test_rejects_stakes_that_see_the_draw_they_are_staked_on(draws):
    """The mean of all draws, the present one included, decides on which side to bet."""
    x = draws["beta_u_shaped"][:, :100]
    seen = np.cumsum(x, axis=1) / np.arange(1, 101)
    capital = np.cumsum(np.log1p(0.5 * np.sign(seen - 0.5) * (x - 0.5)), axis=1)
    fair = np.cumsum(np.log1p(0.5 * np.sign(seen - 0.5)[:, :-1] * (x - 0.5)[:, 1:]), axis=1)
    assert misses_too_often((capital.max(axis=1) > math.log(20)).sum(), REPETITIONS, 0.05)
    assert not misses_too_often((fair.max(axis=1) > math.log(20)).sum(), REPETITIONS, 0.05)


def test_rejects_two_sided_use_of_a_one_sided_level(draws):
    x = draws["bernoulli_half"]
    below = lower_bound(x, 0.05, "clopper_pearson") > 0.5
    above = lower_bound(1.0 - x, 0.05, "clopper_pearson") > 0.5
    assert misses_too_often((below | above).sum(), REPETITIONS, 0.05)


# Selection with a false discovery rate.


def false_share(selected, null):
    return (selected & null).sum() / max(selected.sum(), 1)


@pytest.mark.parametrize("shared", [False, True], ids=["independent", "shared noise"])
def test_false_discoveries_of_ebh_after_sequential_tests(shared):
    """40 of 60 pairs have a mean at the threshold, the others above; each stops when decided."""
    rng = np.random.default_rng([7, shared])
    runs, pairs, n, q = 300, 60, 150, 0.2
    null = np.arange(pairs) < 40
    power, shares = 0, []
    noise = rng.random((runs, 1 if shared else pairs, n))
    scores = np.where(noise < np.where(null, 0.7, 0.95)[:, None], 1.0, 0.0)
    test = SequentialTest(np.full((runs * pairs, 1), 0.7), 0.05, 0.05)
    for start in range(0, n, 50):
        part = scores[:, :, start : start + 50].reshape(runs * pairs, 50, 1)
        test.update(part, slots=range(runs * pairs), counts=[50] * (runs * pairs))
    for log_e_values in test.log_e_values.reshape(runs, pairs):
        selected = ebh(log_e_values, q)
        shares.append(false_share(selected, null))
        power += (selected & ~null).sum()
    assert not means_too_high(shares, q)
    assert power > 0.5 * runs * (~null).sum()  # it does select


def test_ebh_reaches_its_rate_under_the_worst_dependence():
    """All e-values are 1/q together with probability q: the rate is q exactly, so half of it is rejected."""
    rng = np.random.default_rng(11)
    q, n, runs = 0.1, 50, 4000
    null = np.ones(n, dtype=bool)
    together = rng.random(runs) < q
    found = [
        false_share(ebh(np.full(n, math.log(1 / q) + 1e-9 if t else -math.inf), q), null) for t in together
    ]
    assert not means_too_high(found, q)
    assert means_too_high(found, q / 2)


def test_rejects_selection_that_ignores_how_many_were_asked_for():
    rng = np.random.default_rng(12)
    q, n, runs = 0.1, 50, 500
    log_e_values = np.where(rng.random((runs, n)) < q, math.log(1 / q), -math.inf)
    null = np.ones(n, dtype=bool)
    assert means_too_high([false_share(row >= math.log(1 / q), null) for row in log_e_values], q)
    assert not means_too_high([false_share(ebh(row, q), null) for row in log_e_values], q)


def test_the_false_failure_rate_counts_every_check():
    assert _made <= CHECKS
