"""Closed-form bounds against scipy and against exact arithmetic, and what lower_bound refuses."""

from decimal import Decimal, localcontext
from fractions import Fraction
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest

from smoothcert.statistics import Method, lower_bound

METHODS = get_args(Method)


def votes(hits, n):
    return np.arange(n) < hits


@pytest.mark.parametrize("n", [1, 2, 20, 137, 1000])
@pytest.mark.parametrize("alpha", [0.3, 0.05, 0.001, 1e-9])
def test_clopper_pearson_is_scipys_one_sided_interval(n, alpha):
    for hits in sorted({0, 1, n // 3, n - 1, n}):
        interval = binomtest(hits, n, alternative="greater").proportion_ci(1 - alpha, method="exact")
        found = float(lower_bound(votes(hits, n), alpha, "clopper_pearson"))
        # scipy solves P(X >= k) = 1 - (1 - alpha), where the rounding of 1 - alpha shows at 1e-9
        assert found == pytest.approx(interval.low, rel=1e-6, abs=1e-12)


def binomial_tail(hits, n, p):
    """P(X >= hits) of a binomial variable, without any rounding."""
    term, total = p**n, Fraction(0)
    for k in range(n, hits - 1, -1):
        total += term
        if k:
            term = term * k * (1 - p) / ((n - k + 1) * p)
    return total


@pytest.mark.parametrize("alpha", [0.5, 0.05, 0.001, 1e-12])
@pytest.mark.parametrize("n", [1, 5, 40])
def test_clopper_pearson_is_rounded_down_in_exact_arithmetic(n, alpha):
    for hits in range(1, n + 1):
        bound = float(lower_bound(votes(hits, n), alpha, "clopper_pearson"))
        assert binomial_tail(hits, n, Fraction(bound)) <= Fraction(alpha)
        assert binomial_tail(hits, n, Fraction(bound * (1 + 1e-10))) > Fraction(alpha)


def exact(value):
    return Decimal(value.numerator) / Decimal(value.denominator)


@pytest.mark.parametrize("alpha", [0.1, 0.001])
@pytest.mark.parametrize("n", [2, 3, 64, 1000])
def test_hoeffding_and_bernstein_are_rounded_down_in_exact_arithmetic(n, alpha):
    rng = np.random.default_rng(n)
    rows = [
        rng.random(n),
        rng.beta(50, 1, n),
        np.full(n, 0.1),
        np.full(n, 1 - 2.0**-53),
        1.0 * votes(n - 1, n),
    ]
    # bounds just above zero: mean and gap cancel, and a relative rounding would not be enough
    gap = np.sqrt(np.log(1 / alpha) / (2 * n))
    rows += [np.full(n, gap + shift) for shift in (1e-12, 1e-9, 1e-3) if gap + shift <= 1]
    with localcontext() as context:
        context.prec = 60
        for draws in rows:
            numbers = [Fraction(y) for y in draws.tolist()]
            mean = sum(numbers) / n
            variance = sum((y - mean) ** 2 for y in numbers) / (n - 1)
            one_sided, two_sided = (1 / Decimal(alpha)).ln(), (2 / Decimal(alpha)).ln()
            expected = {
                "hoeffding": exact(mean) - (one_sided / (2 * n)).sqrt(),
                "empirical_bernstein": exact(mean)
                - (2 * exact(variance) * two_sided / n).sqrt()
                - 7 * two_sided / (3 * (n - 1)),
            }
            for method, value in expected.items():
                found = float(lower_bound(draws, alpha, method))
                assert found == 0.0 or Decimal(found) <= value
                assert found == pytest.approx(max(float(value), 0.0), abs=1e-12)


def test_hand_computed_bounds():
    # mean 0.75 - sqrt(ln 20 / 200); for Bernstein V = 25/132, gap sqrt(2 V ln 40 / 100) + 7 ln 40 / 297
    draws = votes(75, 100)
    assert float(lower_bound(draws, 0.05, "hoeffding")) == pytest.approx(0.6276126, abs=1e-7)
    assert float(lower_bound(draws, 0.05, "empirical_bernstein")) == pytest.approx(0.5448491, abs=1e-7)
    assert float(lower_bound(np.ones(59), 0.05, "clopper_pearson")) == pytest.approx(0.05 ** (1 / 59))


def test_one_draw_has_no_variance_to_speak_of():
    assert lower_bound([1.0], 0.05, "empirical_bernstein") == 0.0
    counts = lower_bound(np.ones((2, 9)), 0.5, "empirical_bernstein", counts=[1, 9])
    assert counts[0] == 0.0 < counts[1]


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=30)
@given(hits=arrays(np.bool_, (4, 25)), counts=st.lists(st.integers(1, 25), min_size=4, max_size=4))
def test_counts_choose_the_first_draws_and_ignore_what_follows(method, hits, counts):
    draws = hits.astype(float)
    alone = [float(lower_bound(row[:c], 0.1, method)) for row, c in zip(draws, counts, strict=True)]
    for row, count in zip(draws, counts, strict=True):
        row[count:] = -7.0
    found = lower_bound(draws, 0.1, method, counts=counts)
    np.testing.assert_allclose(found, alone, rtol=0, atol=2e-6)


@pytest.mark.parametrize("method", METHODS)
def test_shapes_levels_and_limits(method):
    draws = (np.random.default_rng(0).random((2, 3, 40)) < 0.9).astype(float)
    bound = lower_bound(draws, 0.05, method)
    assert bound.shape == (2, 3) and bound.dtype == np.float64
    assert ((bound >= 0) & (bound <= draws.mean(axis=-1))).all()
    assert (lower_bound(draws, 0.001, method) <= bound).all()
    assert lower_bound(draws[0, 0], 0.05, method).shape == ()
    # as solved: the sums may be taken in another order
    np.testing.assert_allclose(lower_bound(draws, 0.05, method, counts=40), bound, rtol=0, atol=2e-6)
    assert lower_bound(np.zeros(9), 0.05, method) == 0.0
    assert lower_bound(draws[:0], 0.05, method).shape == (0, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5, np.nan], 0.05), "draws holds nan"),
        (([0.5, 1.0000001], 0.05), r"draws holds 1\.0000001"),
        (([0.5, -1e-9], 0.05), "draws holds -1e-09"),
        (([0.5, np.inf], 0.05), "draws holds inf"),
        (([0.5], 0.0), r"alpha=0\.0"),
        (([0.5], 1.0), r"alpha=1\.0"),
        (([0.5], float("nan")), "alpha=nan"),
        (([0.5], 0.1, "bootstrap"), "method='bootstrap'.*betting"),
        (([], 0.1), "draws holds none"),
        ((0.5, 0.1), "draws holds none"),
        (([0.5, 1.0], 0.1, "clopper_pearson"), "clopper_pearson takes votes"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        lower_bound(*arguments)


@pytest.mark.parametrize("counts", [0, 3, -1, [1, 0]])
def test_counts_out_of_range_are_refused(counts):
    with pytest.raises(ValueError, match="counts spans.*between 1 and 2"):
        lower_bound(np.ones((2, 2)), 0.1, counts=counts)
