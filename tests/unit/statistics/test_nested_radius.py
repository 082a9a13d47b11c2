"""Radii from tests at a grid of radii."""

from __future__ import annotations

import numpy as np
import pytest

from smoothcert.statistics import nested_radius


def test_the_last_before_the_first_that_failed() -> None:
    held = [[True, True, False, True], [False, True, True, True], [True] * 4, [False] * 4]
    found = nested_radius(held, [0.1, 0.2, 0.3, 0.4])
    np.testing.assert_array_equal(found, [0.2, np.nan, 0.4, np.nan])
    assert nested_radius(np.zeros((2, 0, 3), dtype=bool), [1, 2, 3]).shape == (2, 0)


def test_no_correction_for_the_grid() -> None:
    """Independent tests, each false at rate alpha: the radius is too large at that rate, however fine the grid.

    40,000 repetitions with a fixed seed; a binomial variable at rate 0.05 exceeds 2,300 with probability below 1e-11.
    """
    generator = np.random.default_rng(0)
    radii, true = np.linspace(0.1, 1.0, 30), 0.5
    for power in (0.2, 0.9, 1.0):
        chance = np.where(radii < true, power, 0.05)
        found = nested_radius(generator.random((40_000, 30)) < chance, radii)
        assert np.sum(found >= true) <= 2300
    # judging by the largest radius that held would fail nearly always
    last = np.where(generator.random((40_000, 30)) < chance, radii, 0.0).max(axis=1)
    assert np.sum(last >= true) > 20_000


@pytest.mark.parametrize(
    ("held", "radii", "message"),
    [
        ([True], [0.1, 0.2], "last axis"),
        ([], [], "last axis"),
        ([True, True], [0.2, 0.1], "increase"),
        ([True, True], [0.1, np.nan], "increase"),
    ],
)
def test_bad_grids_are_errors(held: list[bool], radii: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nested_radius(held, radii)
