"""e-BH against brute force over all subsets, and simultaneous levels."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcert.statistics import ebh, simultaneous_alpha

LOGS = st.floats(-5.0, 12.0) | st.sampled_from([-math.inf, math.inf, math.nan, 0.0, math.log(40)])


def largest_consistent_subset(logs, q):
    """The largest set all of whose members have e >= n / (q |set|), found by trying every subset.

    Where several sets of that size qualify (ties), the size is what is compared.
    """
    n = len(logs)
    for size in range(n, 0, -1):
        for subset in itertools.combinations(range(n), size):
            if all(logs[i] >= math.log(n / (q * size)) for i in subset):
                return set(subset)
    return set()


@settings(max_examples=300)
@given(logs=st.lists(LOGS, min_size=1, max_size=9), q=st.floats(0.01, 0.9))
def test_selects_the_largest_consistent_subset(logs, q):
    assert set(np.flatnonzero(ebh(logs, q)).tolist()) == largest_consistent_subset(logs, q)


def test_hand_computed_selection():
    # n = 4, q = 0.2: e must reach 20 alone, 10 as one of two, 6.67 of three, 5 of four
    def chosen(*e_values):
        return ebh(np.log(e_values), 0.2).tolist()

    assert chosen(19.0, 1.0, 1.0, 1.0) == [False] * 4
    assert chosen(1.0, 20.1, 1.0, 1.0) == [False, True, False, False]
    assert chosen(11.0, 1.0, 10.1, 6.0) == [True, False, True, False]
    assert chosen(11.0, 5.1, 10.1, 6.0) == [True] * 4  # the weakest lifts all to the last step
    assert chosen(7.0, 7.0, 7.0, 4.0) == [True, True, True, False]


def test_failed_pairs_are_never_selected_but_count():
    strong = [math.log(24.0)]
    assert ebh(strong * 2, 0.1).tolist() == [True, True]
    assert ebh([*strong * 2, math.nan, math.nan, math.nan], 0.1).tolist() == [False] * 5
    assert ebh([math.inf, math.nan], 0.1).tolist() == [True, False]


def test_nobody_asked_for_nobody_selected():
    assert ebh([], 0.1).shape == (0,)


@pytest.mark.parametrize("q", [0.0, 1.0, -0.1, math.nan])
def test_levels_outside_are_refused(q):
    with pytest.raises(ValueError, match="q="):
        ebh([1.0], q)


def test_matrices_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
        ebh(np.zeros((2, 2)), 0.1)


def test_simultaneous_levels_add_up():
    assert simultaneous_alpha(0.05, 1) == 0.05
    assert simultaneous_alpha(0.05, 1000) == pytest.approx(5e-5)
    for alpha, rows in ((0.0, 3), (1.0, 3), (0.1, 0), (math.nan, 1)):
        with pytest.raises(ValueError, match=f"alpha={alpha}.*rows={rows}"):
            simultaneous_alpha(alpha, rows)
