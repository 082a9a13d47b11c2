"""Lower bounds and sequential tests miss the truth no more often than they say.

Every test counts misses among independent repetitions with a seeded generator and compares with a binomial
quantile: if the true miss rate were exactly alpha, a test would fail with probability below 1e-6 (per case;
about 1e-4 for the whole file, and only after a change of seed or code, since the same seed gives the same
counts). Nothing is retried.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import beta, binom

from smoothcert.statistics import (
    CERTIFIED,
    REFUTED,
    SequentialTest,
    ebh,
    lower_bound,
    mean_interval,
    share_interval,
)

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

SCORES: dict[str, tuple[float, Draw]] = {
    "beta, wide": (0.75, lambda g, shape: g.beta(3.0, 1.0, shape)),
    "beta, near one": (0.988, lambda g, shape: g.beta(98.8, 1.2, shape)),
    "votes": (0.9, lambda g, shape: (g.random(shape) < 0.9).astype(np.float64)),
    "rare catastrophes": (0.98, lambda g, shape: np.where(g.random(shape) < 0.02, 0.0, 1.0)),
    "two points": (0.7, lambda g, shape: np.where(g.random(shape) < 0.5, 0.5, 0.9)),
    "near-constant": (0.8, lambda g, shape: 0.8 + 1e-4 * g.uniform(-1, 1, shape)),
    "low": (0.02, lambda g, shape: np.where(g.random(shape) < 0.02, 1.0, 0.0)),
}
# A bound may coincide with a mean of a nearly constant score up to rounding.
EXACT = 1e-12


def allowed(repetitions: int, rate: float) -> int:
    """More misses than this have probability below 1e-6 if each has probability ``rate``."""
    return int(binom.ppf(1 - 1e-6, repetitions, rate))


def seed(*parts: object) -> np.random.Generator:
    return np.random.default_rng([ord(c) for c in repr(parts)])


@pytest.mark.parametrize("n", [20, 100, 1000])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("scores", SCORES)
def test_fixed_number_of_draws(scores: str, alpha: float, n: int) -> None:
    mean, draw = SCORES[scores]
    repetitions = 1200 if n < 1000 else 500
    values = draw(seed(scores, alpha, n), (repetitions, n))
    for method in ("betting", "empirical_bernstein", "hoeffding"):
        misses = np.sum(lower_bound(values, alpha, method) > mean + EXACT)
        assert misses <= allowed(repetitions, alpha), method
        # and so from above
        misses = np.sum(1 - lower_bound(1 - values, alpha, method) < mean - EXACT)
        assert misses <= allowed(repetitions, alpha), method


@pytest.mark.parametrize("n", [20, 100, 1000])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("p", [0.3, 0.9, 0.995])
def test_clopper_pearson(p: float, alpha: float, n: int) -> None:
    votes = (seed(p, alpha, n).random((4000, n)) < p).astype(np.float64)
    found = lower_bound(votes, alpha, "clopper_pearson")
    assert np.sum(found > p) <= allowed(4000, alpha)
    hits = votes.sum(axis=1)
    expected = np.where(hits > 0, beta.ppf(alpha, np.maximum(hits, 1), n - hits + 1), 0.0)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("scores", SCORES)
def test_adversarial_stopping(scores: str, alpha: float) -> None:
    """Stop where the bound looks best: at none of 10 looks between 5 and 500 draws may it exceed the mean."""
    mean, draw = SCORES[scores]
    values = draw(seed("stop", scores, alpha), (600, 500))
    best = np.zeros(600)
    for count in np.unique(np.geomspace(5, 500, 10).astype(int)):
        best = np.maximum(best, lower_bound(values, alpha, counts=np.full(600, count)))
    assert np.sum(best > mean + EXACT) <= allowed(600, alpha)


def test_peeking_would_break_a_fixed_bound() -> None:
    """The adversary of the test above is a real one: Hoeffding's bound fails under it."""
    values = (seed("peek").random((2000, 1000)) < 0.5).astype(np.float64)
    best = np.zeros(2000)
    for count in np.unique(np.geomspace(5, 1000, 60).astype(int)):
        best = np.maximum(best, lower_bound(values[:, :count], 0.05, "hoeffding"))
    assert np.mean(best > 0.5) > 0.06


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("scores", SCORES)
def test_sequential_tests_do_not_certify_what_is_false(scores: str, alpha: float) -> None:
    """The threshold lies at the mean, the hardest false claim; 1,000 draws in chunks of 16, stopping at will."""
    mean, draw = SCORES[scores]
    slots = 1500
    test = SequentialTest(np.full((slots, 1), mean + 1e-9), alpha, 0.05)
    generator = seed("sequential", scores, alpha)
    for _ in range(63):
        test.update(draw(generator, (slots, 16, 1)), slots=range(slots), counts=np.full(slots, 16))
    assert np.sum(test.decisions == CERTIFIED) <= allowed(slots, alpha)
    # the capital where the test stopped is an e-value: P(e >= x) <= 1/x for every x
    e_values = np.exp(test.log_e_values[:, 0])
    for x in (2.0, 5.0, 10.0):
        assert np.sum(e_values >= x) <= allowed(slots, 1 / x)


@pytest.mark.parametrize("scores", ["beta, wide", "beta, near one", "votes", "near-constant"])
def test_sequential_tests_rarely_give_up_on_what_is_true(scores: str) -> None:
    mean, draw = SCORES[scores]
    test = SequentialTest(np.full((1500, 1), mean - 1e-9), 0.001, 0.05)
    generator = seed("futility", scores)
    for _ in range(40):
        test.update(draw(generator, (1500, 16, 1)), slots=range(1500), counts=np.full(1500, 16))
    assert np.sum(test.decisions == REFUTED) <= allowed(1500, 0.05)


def test_certified_sets_by_ebh_keep_the_false_discovery_rate() -> None:
    """Half of 200 claims are false; mean false discovery proportion over 60 runs, at most q + 4 deviations."""
    q, proportions, found = 0.1, [], []
    generator = seed("ebh")
    for _ in range(60):
        means = np.where(np.arange(200) < 100, 0.8, 0.9)
        test = SequentialTest(np.full((200, 1), 0.8 + 1e-9), 1e-6, 1e-6)
        test.update(
            np.clip(generator.normal(means[:, None, None], 0.05, (200, 300, 1)), 0, 1),
            slots=range(200),
            counts=np.full(200, 300),
        )
        chosen = ebh(test.log_e_values[:, 0], q)
        proportions.append(chosen[:100].sum() / max(chosen.sum(), 1))
        found.append(chosen[100:].mean())
    assert np.mean(proportions) <= q + 4 * 0.5 / np.sqrt(60 * 100)
    assert np.mean(found) > 0.9


def test_share_intervals_cover_at_the_end_and_all_along() -> None:
    generator = seed("share")
    exact_misses = anytime_misses = 0
    for _ in range(500):
        p = generator.uniform(0.02, 0.98)
        hits = np.cumsum(generator.random(400) < p)
        low, high = share_interval(int(hits[-1]), 400, 0.95)
        exact_misses += not low <= p <= high
        looks = (
            share_interval(int(hits[n - 1]), n, 0.95, anytime=True) for n in (1, 3, 10, 30, 100, 200, 400)
        )
        anytime_misses += any(not low <= p <= high for low, high in looks)
    assert exact_misses <= allowed(500, 0.05)
    assert anytime_misses <= allowed(500, 0.05)


@pytest.mark.parametrize("anytime", [False, True])
def test_mean_intervals_cover(anytime: bool) -> None:
    generator = seed("mean", anytime)
    misses = 0
    for _ in range(400):
        values = generator.beta(4.0, 1.0, 150)
        low, high = mean_interval(values, 0.9, anytime=anytime)
        misses += not low <= 0.8 <= high
    assert misses <= allowed(400, 0.1)


def test_class_radius_needs_no_correction_for_rivals() -> None:
    """The smallest of 20 lower bounds, each at alpha, exceeds the smallest mean with probability at most
    alpha.

    The rivals' scores are those of the same draws, as in a row: dependent. All means are equal, which is
    worst: 20 rivals are nearest. Taking the largest instead would fail nearly always.
    """
    generator = seed("rivals")
    shared = generator.normal(0, 0.05, (600, 1, 100))
    values = np.clip(0.7 + shared + generator.normal(0, 0.05, (600, 20, 100)), 0, 1)
    bounds = lower_bound(values, 0.05)
    assert np.sum(bounds.min(axis=1) > 0.7) <= allowed(600, 0.05)
