"""Eigenvalue bounds against Chernoff's inequality written a second time, and their ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq

from smoothcert.statistics import eigenvalue_upper_bound, fix_ball, largest_eigenvalue


def chernoff(p: float, n: int, alpha: float) -> float:
    def excess(q: float) -> float:
        first = p * math.log(p / q) if p else 0.0
        return n * (first + (1 - p) * math.log((1 - p) / (1 - q))) - math.log(1 / alpha)

    return float(brentq(excess, p + 1e-15, 1 - 1e-15, xtol=1e-14))


@pytest.mark.parametrize(("p", "n"), [(0.0, 300), (0.01, 1000), (0.3, 50), (0.9, 20)])
def test_chernoff(p: float, n: int) -> None:
    for scale in (1.0, 3.61):
        found = float(eigenvalue_upper_bound(scale * p, n, 0.001, scale))
        assert found == pytest.approx(scale * chernoff(p, n, 0.001), rel=1e-7) and found >= scale * chernoff(
            p, n, 0.001
        )
    # nothing seen: 1 - alpha^(1/n)
    assert float(eigenvalue_upper_bound(0.0, n, 0.001, 1.0)) == pytest.approx(1 - 0.001 ** (1 / n), rel=1e-6)


def test_anytime_costs_little_and_is_the_capital() -> None:
    p, n, alpha = 0.02, 1000, 0.001
    found = float(eigenvalue_upper_bound(p, n, alpha, 1.0, anytime=True))
    etas = (0.1, 0.25, 0.6, 1.5, 4.0, 12.0)
    capital = np.mean([math.exp(-e * p * n - n * math.log(1 - found + found * math.exp(-e))) for e in etas])
    assert capital == pytest.approx(1 / alpha, rel=1e-5)
    fixed = float(eigenvalue_upper_bound(p, n, alpha, 1.0))
    assert fixed < found < 1.2 * fixed


def test_bounds_grow_and_end() -> None:
    top = np.linspace(0, 2.0, 30)
    for anytime in (False, True):
        found = eigenvalue_upper_bound(top, 200, 0.01, 2.0, anytime=anytime)
        assert np.all(np.diff(found) >= 0) and np.all(found >= top) and found[-1] == 2.0
        assert eigenvalue_upper_bound(top[:, None], [10, 100], 0.01, 2.0, anytime=anytime).shape == (30, 2)


def test_largest_eigenvalue() -> None:
    generator = np.random.default_rng(0)
    a = generator.normal(size=(5, 40, 40))
    moments = a @ a.swapaxes(1, 2)
    found = largest_eigenvalue(moments)
    exact = np.linalg.norm(a, ord=2, axis=(1, 2)) ** 2
    assert np.all(found >= exact) and np.all(found <= exact * (1 + 1e-8))
    assert float(largest_eigenvalue([[0.0]])) == 0.0


def test_ball() -> None:
    generator = np.random.default_rng(0)
    pilot = generator.normal(size=(3, 20, 4))
    pilot /= np.linalg.norm(pilot, axis=2, keepdims=True)
    centre, squared = fix_ball(pilot)
    np.testing.assert_allclose(centre, pilot.mean(axis=1))
    largest = np.max(np.sum((pilot - centre[:, None]) ** 2, axis=2), axis=1)
    np.testing.assert_allclose(squared, np.minimum(2 * largest, (1 + np.linalg.norm(centre, axis=1)) ** 2))
    same = np.tile([1.0, 0.0], (5, 1))
    assert float(fix_ball(same)[1]) > 0  # not a point, which nothing would ever hit again


def test_bad_input_is_an_error() -> None:
    for arguments, message in [
        ((0.1, 10, 1.0, 1.0), "alpha"),
        ((0.1, 0, 0.1, 1.0), "draws"),
        ((np.nan, 10, 0.1, 1.0), "sample_eigenvalue"),
        ((1.1, 10, 0.1, 1.0), "sample_eigenvalue"),
        ((0.1, 10, 0.1, 0.0), "value_range"),
    ]:
        with pytest.raises(ValueError, match=message):
            eigenvalue_upper_bound(*arguments)
    with pytest.raises(ValueError, match="square"):
        largest_eigenvalue(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="NaN"):
        largest_eigenvalue([[np.nan]])
    with pytest.raises(ValueError, match="pilot"):
        fix_ball(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="pilot"):
        fix_ball([[np.inf, 0.0]])
