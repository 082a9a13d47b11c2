"""The first sentence without targets: the data choose its radius, and its interval allows for that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import beta, binom

from smoothcert.report.headline import Headline, choose_radius, confidence_among, interval_of

RADII = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
HISTORIES, PAIRS = 4000, 90


def rows(counts: list[int], pairs: int, interval: str = "exact") -> list[dict[str, Any]]:
    return [
        {"radius": radius, "certified": count, "pairs": pairs, "share": count / pairs, "interval": interval}
        for radius, count in zip(RADII, counts, strict=False)
    ]


def test_the_largest_radius_that_half_hold_is_chosen_among_all() -> None:
    found = choose_radius(rows([10, 8, 5, 4], 10)[::-1])
    assert found is not None and (found[0]["radius"], found[1]) == (0.3, 4)
    none_holds = choose_radius(rows([4, 3], 10))
    assert none_holds is not None and (none_holds[0]["radius"], none_holds[1]) == (0.1, 2)
    assert choose_radius([]) is None


def test_the_level_is_divided_by_the_choices() -> None:
    """Against Clopper and Pearson's ends as scipy has them."""
    (row, choices) = choose_radius(rows([80, 60, 45, 20, 1], 100)) or ({}, 0)
    tail = 0.05 / 5 / 2
    expected = beta.ppf(tail, 60, 41), beta.ppf(1 - tail, 61, 40)
    assert interval_of(row, choices) == pytest.approx(expected, abs=1e-9)
    assert Headline("", "", "").confidence == confidence_among(1) == 0.95


@pytest.mark.parametrize("steep", [0.0, 0.02, 0.06])
def test_the_chosen_interval_covers(steep: float) -> None:
    """Shares near one half, where the choice matters most, of radii whose pairs know nothing of each other.

    The interval misses with probability at most 5%; more than 5% of the histories plus five standard deviations would
    miss by chance in fewer than one of a million runs of this test. Without the correction it misses too often (below).
    """
    random = np.random.default_rng(15)
    shares = 0.5 - steep * (np.arange(len(RADII)) - 3.5)
    counts = random.binomial(PAIRS, shares, (HISTORIES, len(RADII)))
    ends = {(k, m): interval_of(rows([k], PAIRS)[0], m) for k in range(PAIRS + 1) for m in (1, len(RADII))}
    missed = {1: 0, len(RADII): 0}
    for each in counts:
        found = choose_radius(rows(each.tolist(), PAIRS))
        assert found is not None and found[1] == len(RADII)
        true = shares[RADII.index(found[0]["radius"])]
        for choices in missed:
            low, high = ends[found[0]["certified"], choices]
            missed[choices] += not low <= true <= high
    limit = 0.05 * HISTORIES + 5 * (0.05 * 0.95 * HISTORIES) ** 0.5
    assert missed[len(RADII)] <= limit
    assert missed[1] > missed[len(RADII)]


def test_a_choice_can_spoil_an_interval_that_is_not_corrected() -> None:
    """The largest of m equal shares with a count in the upper tail: P(some of m is there) is exact, and above 5%."""
    count = next(k for k in range(PAIRS + 1) if interval_of(rows([k], PAIRS)[0], 1)[0] > 0.5)
    beyond = binom.sf(count - 1, PAIRS, 0.5)
    assert beyond <= 0.025 and 1 - (1 - beyond) ** len(RADII) > 0.05
    corrected = next(k for k in range(PAIRS + 1) if interval_of(rows([k], PAIRS)[0], len(RADII))[0] > 0.5)
    assert 1 - (1 - binom.sf(corrected - 1, PAIRS, 0.5)) ** len(RADII) <= 0.025
