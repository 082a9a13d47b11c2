"""Ranks around a population quantile: against scipy, and by exact sums over all outcomes."""

import numpy as np
import pytest
from scipy.stats import binom

from smoothcert.statistics import quantile_ranks


@pytest.mark.parametrize("quantile", [0.01, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("pairs", [1, 5, 6, 50, 1000, 10**7])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.9999])
def test_the_ranks_are_scipys(pairs: int, quantile: float, confidence: float) -> None:
    low, high = quantile_ranks(pairs, quantile, confidence)
    tail = (1 - confidence) / 2
    assert low == int(binom.ppf(tail, pairs, quantile))
    assert high == int(binom.isf(tail, pairs, quantile)) + 1


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.75])
@pytest.mark.parametrize("pairs", [1, 6, 33])
def test_they_cover_at_their_level(pairs: int, quantile: float) -> None:
    low, high = quantile_ranks(pairs, quantile, 0.9)
    # the number of values at most the quantile says on which side of it each rank lies
    at_most = np.arange(pairs + 1)
    covered = (at_most >= low) & (at_most < high)
    assert binom.pmf(at_most, pairs, quantile)[covered].sum() >= 0.9


def test_values_that_all_tie_are_covered_too() -> None:
    low, high = quantile_ranks(100, 0.5)
    values = np.sort(np.r_[np.zeros(40), np.ones(60)])
    assert values[low - 1] <= 1.0 <= values[high - 1]


def test_few_pairs_have_no_bound() -> None:
    assert quantile_ranks(5, 0.5) == (0, 6) and quantile_ranks(6, 0.5) == (1, 6)
    assert quantile_ranks(0, 0.5) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [((5, 0.0), "quantile=0.0"), ((5, 1.0), "quantile=1.0"), ((-1, 0.5), "pairs=-1"), ((5, 0.5, 0.3), "0.3")],
)
def test_what_is_no_quantile_is_refused(arguments: tuple[float, ...], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        quantile_ranks(*arguments)  # type: ignore[arg-type]
