"""Intervals over pairs: against scipy, by exact sums over all outcomes, and at every moment of a run."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betaincc
from scipy.stats import binom, binomtest

from smoothcert.statistics import lower_bound, mean_interval, share_interval

SHARES = (0.001, 0.03, 0.2, 0.5, 0.77, 0.95, 0.9999)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999999])
@pytest.mark.parametrize("pairs", [1, 10, 500, 10**6])
def test_exact_interval_is_scipys_and_rounded_outwards(pairs, confidence):
    for hits in sorted({0, 1, pairs // 4, pairs - 1, pairs}):
        low, high = share_interval(hits, pairs, confidence)
        interval = binomtest(hits, pairs).proportion_ci(confidence, method="exact")
        assert (low, high) == pytest.approx((interval.low, interval.high), rel=1e-8)
        tail = (1 - confidence) / 2
        if hits:
            assert betaincc(hits, pairs - hits + 1, low) >= 1 - tail
        if hits < pairs:
            assert betaincc(hits + 1, pairs - hits, high) <= tail


@pytest.mark.parametrize("pairs", [1, 7, 50])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
def test_exact_interval_covers_at_its_level(pairs, confidence):
    intervals = [share_interval(hits, pairs, confidence) for hits in range(pairs + 1)]
    for share in np.linspace(0.0, 1.0, 101):
        chance = binom.pmf(np.arange(pairs + 1), pairs, share)
        covered = sum(p for p, (low, high) in zip(chance, intervals, strict=True) if low <= share <= high)
        assert covered >= confidence - 1e-12


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
def test_anytime_interval_covers_at_all_moments_at_once(confidence):
    """The chance that the interval ever misses, summed exactly over all paths of 40 pairs."""
    steps = 40
    intervals = [
        [share_interval(h, n, confidence, anytime=True) for h in range(n + 1)] for n in range(steps + 1)
    ]
    for share in SHARES:
        alive = np.array([1.0])  # chance of each number of hits on paths that never missed so far
        for n in range(1, steps + 1):
            alive = np.append(alive * (1 - share), 0.0) + np.append(0.0, alive * share)
            alive *= [low <= share <= high for low, high in intervals[n]]
        assert alive.sum() >= confidence


def log_evidence(hits, misses, share):
    """Log likelihood ratio of the Krichevsky-Trofimov forecaster (the Beta(1/2, 1/2) mixture) to ``share``."""
    forecasts = [math.log((i + 0.5) / (i + 1)) for i in range(hits)]
    forecasts += [math.log((j + 0.5) / (hits + j + 1)) for j in range(misses)]
    return math.fsum(forecasts) - hits * math.log(share) - misses * math.log1p(-share)


@pytest.mark.parametrize(("hits", "pairs"), [(0, 40), (3, 40), (20, 40), (40, 40), (990, 1000), (1, 2)])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.9999])
def test_anytime_ends_are_where_the_evidence_reaches_the_level(hits, pairs, confidence):
    low, high = share_interval(hits, pairs, confidence, anytime=True)
    limit = -math.log1p(-confidence)
    assert low <= hits / pairs <= high
    for end, inwards in ((low, 1e-7), (high, -1e-7)):
        if end in (0.0, 1.0):
            assert hits in (0, pairs)
            continue
        assert log_evidence(hits, pairs - hits, end) >= limit
        assert log_evidence(hits, pairs - hits, end + inwards) < limit


@settings(max_examples=100)
@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.booleans())
def test_intervals_mirror_nest_and_hold_the_share(counted, anytime):
    hits, pairs = counted
    low, high = share_interval(hits, pairs, anytime=anytime)
    assert 0.0 <= low <= hits / pairs <= high <= 1.0
    mirrored = share_interval(pairs - hits, pairs, anytime=anytime)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)
    wider = share_interval(hits, pairs, 0.999, anytime=anytime)
    assert wider[0] <= low and high <= wider[1]
    fixed = share_interval(hits, pairs)
    assert low <= fixed[0] + 1e-12 and fixed[1] <= high + 1e-12  # what may be watched costs width


def test_no_pairs_say_nothing():
    assert share_interval(0, 0) == share_interval(0, 0, anytime=True) == (0.0, 1.0)
    assert mean_interval([]) == mean_interval([], anytime=True) == (0.0, 1.0)


@pytest.mark.parametrize("anytime", [False, True])
def test_mean_interval_is_two_one_sided_bounds_at_half_the_error(anytime):
    values = np.random.default_rng(0).beta(8, 2, 300)
    low, high = mean_interval(values, 0.95, anytime=anytime)
    method = "betting" if anytime else "empirical_bernstein"
    assert low == pytest.approx(float(lower_bound(values, 0.025, method)), abs=2e-6)
    assert high == pytest.approx(1 - float(lower_bound(1 - values, 0.025, method)), abs=2e-6)
    assert low < values.mean() < high
    assert mean_interval(np.ones(50), 0.95, anytime=anytime)[1] == 1.0
    assert mean_interval(np.zeros(50), 0.95, anytime=anytime)[0] == 0.0


@pytest.mark.parametrize(("hits", "pairs"), [(-1, 5), (6, 5), (0, -1)])
def test_impossible_counts_are_refused(hits, pairs):
    with pytest.raises(ValueError, match=f"hits={hits}.*pairs={pairs}"):
        share_interval(hits, pairs)


@pytest.mark.parametrize("confidence", [0.05, 1.0, math.nan, 95])
def test_confidence_is_the_coverage_not_the_error(confidence):
    for interval in (lambda: share_interval(1, 2, confidence), lambda: mean_interval([0.5], confidence)):
        with pytest.raises(ValueError, match=f"confidence={confidence}"):
            interval()


@pytest.mark.parametrize(
    ("values", "message"),
    [([0.5, math.nan], "nan"), ([0.5, 1.5], r"1\.5|-0\.5"), ([[0.5]], "shape"), (0.5, "shape")],
)
def test_values_that_are_no_shares_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        mean_interval(values)
