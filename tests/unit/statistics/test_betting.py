"""Betting bounds against the published formula computed slowly, measured figures, and exact coverage."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from smoothcert.statistics import lower_bound

TOLERANCE = 2e-6
"""The solver promises about 1e-6."""


def beta(rng, mean, deviation, shape):
    size = mean * (1 - mean) / deviation**2 - 1
    return rng.beta(mean * size, (1 - mean) * size, shape)


# Mean gap over 400 repetitions, as measured when the method was chosen (theory.md section 3). The gap of one
# repetition has a standard deviation below 5%; 200 repetitions, the rounding of the figures and 400 more make 2%.
@pytest.mark.parametrize(
    ("mean", "deviation", "n", "betting", "bernstein", "hoeffding"),
    [
        (0.988, 0.01, 500, 0.0151, 0.0373, 0.0831),
        (0.988, 0.01, 1000, 0.0076, 0.0190, 0.0588),
        (0.75, 0.05, 1000, 0.0078, 0.0238, 0.0587),
    ],
)
def test_gaps_are_those_that_were_measured(mean, deviation, n, betting, bernstein, hoeffding):
    draws = beta(np.random.default_rng(7), mean, deviation, (200, n))
    for method, published in (
        ("betting", betting), ("empirical_bernstein", bernstein), ("hoeffding", hoeffding),
    ):  # fmt: skip
        bound = lower_bound(draws, 0.001, method)
        assert (bound <= mean).all()
        assert (draws.mean(axis=1) - bound).mean() == pytest.approx(published, rel=0.02), method


def families(rng, n):
    yield rng.random(n)
    yield (rng.random(n) < 0.7).astype(float)
    yield np.ones(n)
    yield rng.beta(0.1, 0.1, n)
    yield 1.0 - 1e-9 * rng.random(n)
    yield np.append(np.ones(n - 1), 0.0)
    yield np.append(0.0, np.ones(n - 1))
    yield np.where(rng.random(n) < 0.9, 0.98, 0.2)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 33, 100])
@pytest.mark.parametrize("alpha", [0.2, 0.05, 1e-3, 1e-9])
def test_bound_lies_between_the_formula_at_the_last_draw_and_its_largest_so_far(reference, n, alpha):
    for draws in families(np.random.default_rng([n, int(1 / alpha)]), n):
        bound, values = float(lower_bound(draws, alpha)), draws.tolist()
        least = reference.lower_bound(values, alpha, peek=False)
        assert bound >= min(least, draws.mean()) - TOLERANCE
        assert bound <= reference.lower_bound(values, alpha, peek=True) + 1e-8


@settings(max_examples=150)
@given(
    draws=arrays(np.float64, st.integers(1, 40), elements=st.floats(0.0, 1.0)),
    alpha=st.floats(1e-12, 0.5),
)
def test_the_bound_itself_has_reached_the_capital(reference, draws, alpha):
    bound = float(lower_bound(draws, alpha))
    assert 0.0 <= bound <= draws.mean()
    if bound > 0.0:
        assert max(reference.log_capitals(draws.tolist(), alpha, bound)) >= math.log(1 / alpha)


@settings(max_examples=50)
@given(
    draws=arrays(np.float64, (5, 30), elements=st.floats(0.0, 1.0)),
    counts=st.lists(st.integers(1, 30), min_size=5, max_size=5),
)
def test_draws_beyond_the_count_change_nothing_whatever_they_are(draws, counts):
    alone = [float(lower_bound(row[:count], 0.05)) for row, count in zip(draws, counts, strict=True)]
    dirty = draws.copy()
    for row, count in zip(dirty, counts, strict=True):
        row[count:] = np.nan
    np.testing.assert_allclose(lower_bound(dirty, 0.05, counts=counts), alone, rtol=0, atol=TOLERANCE)


def test_a_row_does_not_depend_on_its_neighbours_or_their_number():
    draws = np.random.default_rng(3).beta(5, 1, (300, 150))
    together = lower_bound(draws, 0.01)
    alone = [float(lower_bound(row, 0.01)) for row in draws[::37]]
    np.testing.assert_allclose(together[::37], alone, rtol=0, atol=TOLERANCE)
    shaped = lower_bound(draws.reshape(3, 100, 150), 0.01)
    np.testing.assert_allclose(shaped, together.reshape(3, 100), rtol=0, atol=TOLERANCE)


def test_no_rows_give_no_bounds():
    assert lower_bound(np.zeros((0, 5)), 0.01).shape == (0,)
    assert lower_bound(np.zeros((3, 0, 5)), 0.01).shape == (3, 0)


def test_hopeless_draws_are_bounded_by_zero():
    assert lower_bound(np.zeros(50), 0.01) == 0.0
    assert lower_bound(np.ones(1), 1e-6) < 1e-3


def test_floor_is_the_log_of_the_level_over_the_number_of_draws():
    # K_n(m) of n ones is at most (1 / m)^n: no bet shows more than m = alpha^(1/n).
    for n in (50, 500, 5000):
        bound = float(lower_bound(np.ones(n), 0.001))
        assert bound <= 0.001 ** (1 / n)
        assert 1 - bound <= 1.3 * math.log(1000) / n


@pytest.mark.parametrize("values", [(0.0, 1.0), (0.0, 0.9, 1.0)])
@pytest.mark.parametrize("alpha", [0.3, 0.1, 0.02])
def test_exact_miss_rate_over_all_sequences(values, alpha):
    """Every sequence of 10 (7) draws, each with its probability: the miss rate is a sum, not an estimate."""
    n = 10 if len(values) == 2 else 7
    codes = np.array(list(itertools.product(range(len(values)), repeat=n)))
    draws = np.array(values)[codes]
    # The largest bound over all stopping times: what a hostile stopping rule would report.
    lengths = [lower_bound(draws[:, :stop], alpha) for stop in range(1, n + 1)]
    hostile = np.max(lengths, axis=0)
    for high in (0.05, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99):
        shares = np.array([1 - high, high]) if len(values) == 2 else np.array([1 - high, high / 2, high / 2])
        mean = float(shares @ np.array(values))
        probability = shares[codes].prod(axis=1)
        assert probability.sum() == pytest.approx(1.0)
        assert probability[hostile > mean].sum() <= alpha
