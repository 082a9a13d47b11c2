"""Paired differences: McNemar against scipy, coverage of shares summed over every outcome, means on known ones."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from smoothcert.statistics import mcnemar, mean_difference, share_difference, share_interval


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (5, 0), (0, 6), (3, 3), (12, 4), (400, 350)])
def test_mcnemar_is_the_exact_binomial_test_of_the_changed(gained: int, lost: int) -> None:
    expected = binomtest(gained, gained + lost, 0.5).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(gained, lost) == mcnemar(lost, gained)


@pytest.mark.parametrize("confidence", [0.5, 0.9])
@pytest.mark.parametrize(
    ("up", "down"), [(0.0, 0.0), (0.5, 0.5), (0.3, 0.1), (0.9, 0.0), (0.02, 0.05), (0.0, 1.0)]
)
def test_shares_are_covered_at_their_level(up: float, down: float, confidence: float) -> None:
    pairs, missed = 14, 0.0
    for gained in range(pairs + 1):
        for lost in range(pairs + 1 - gained):
            same = pairs - gained - lost
            ways = (
                math.factorial(pairs)
                // math.factorial(gained)
                // math.factorial(lost)
                // math.factorial(same)
            )
            found = share_difference(gained, lost, pairs, confidence)
            assert -1.0 <= found.low <= (gained - lost) / pairs <= found.high <= 1.0
            if not found.low <= up - down <= found.high:
                missed += ways * up**gained * down**lost * (1.0 - up - down) ** same
    assert missed <= 1.0 - confidence + 1e-9


def test_pairing_tells_apart_what_two_intervals_do_not() -> None:
    # 60 of 100 against 48 of 100, where nobody loses
    found = share_difference(12, 0, 100)
    assert found.difference == 0.12 and found.low > 0.0
    assert found.p_value == pytest.approx(2 * 0.5**12) and (found.gained, found.lost) == (12, 0)
    assert share_interval(60, 100)[0] < share_interval(48, 100)[1], "their own intervals overlap"


def test_without_pairs_nothing_is_known() -> None:
    assert share_difference(0, 0, 0).difference is None
    assert (share_difference(0, 0, 0).low, share_difference(0, 0, 0).high) == (-1.0, 1.0)
    nothing = mean_difference([])
    assert nothing.difference is None and (nothing.low, nothing.high) == (-1.0, 1.0)


def test_means_of_differences_are_covered() -> None:
    """500 intervals at 90% around a known mean: at most 10% miss; 80 or more misses have probability below 3e-5."""
    random = np.random.default_rng(7)
    missed = 0
    for _ in range(500):
        found = mean_difference(
            random.choice([-0.5, 0.0, 0.25, 1.0], size=60, p=[0.1, 0.5, 0.3, 0.1]), confidence=0.9
        )
        missed += not found.low <= 0.125 <= found.high
    assert missed < 80


def test_means_follow_the_reach_and_the_sign() -> None:
    differences = np.tile([0.1, 0.2, -0.05], 100)
    narrow, wide = mean_difference(differences, reach=0.2), mean_difference(differences, reach=2.0)
    assert narrow.difference == pytest.approx(0.25 / 3) and narrow.p_value is None
    assert wide.low < narrow.low < narrow.difference < narrow.high < wide.high
    turned = mean_difference(-differences, reach=0.2)
    assert (turned.low, turned.high) == pytest.approx((-narrow.high, -narrow.low), abs=1e-6)


def test_many_pairs_are_quick_and_narrow() -> None:
    differences = np.tile([0.1, 0.0], 200_000)
    found = mean_difference(differences)
    assert found.low <= 0.05 <= found.high and found.high - found.low < 0.01


@pytest.mark.parametrize(("gained", "lost", "pairs"), [(-1, 0, 3), (2, 2, 3), (0, -1, 3)])
def test_counts_that_cannot_be_are_refused(gained: int, lost: int, pairs: int) -> None:
    with pytest.raises(ValueError, match="gained="):
        share_difference(gained, lost, pairs)
    if min(gained, lost) < 0:
        with pytest.raises(ValueError, match="0 or more"):
            mcnemar(gained, lost)


@pytest.mark.parametrize("wrong", [[0.1, math.nan], [1.5], [[0.1], [0.2]]])
def test_differences_that_cannot_be_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError):
        mean_difference(wrong)  # type: ignore[arg-type]
