"""Reaching a threshold proves the target, and the threshold is the smallest that does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from smoothcert.catalogue.certificates import of_name
from smoothcert.certificates import angular_bound, fcsb
from smoothcert.engine.thresholds import (
    IMPOSSIBLE,
    TRIVIAL,
    certified_threshold,
    score_threshold,
)

FCSB, ANGULAR = of_name("fcsb"), of_name("angular")
cosines = st.floats(0.0, 0.99)
shifts = st.floats(0.01, 3.0)


@settings(max_examples=150)
@given(cosines, shifts, st.floats(0.05, 3.0))
def test_fcsb_threshold_is_the_closed_form_and_reaching_it_certifies(cosine, rho, sigma):
    threshold = certified_threshold(FCSB, cosine, rho * sigma, sigma)
    exact = norm.cdf(norm.ppf((1 + cosine) / 2) + rho)
    if threshold >= IMPOSSIBLE:
        assert exact > 1 - 1e-12
        return
    assert float(fcsb(threshold, rho * sigma, sigma)) >= cosine
    assert threshold == pytest.approx(exact, abs=1e-11)


@settings(max_examples=40)
@given(st.floats(0.0, 0.98), st.floats(0.05, 2.5))
@example(
    0.9721437593924155, 0.40821073
)  # the bound falls by a step of rounding just above where it first suffices
def test_reaching_the_angular_threshold_certifies_and_less_does_not(cosine, rho):
    threshold = certified_threshold(ANGULAR, cosine, rho, 1.0)
    if threshold >= IMPOSSIBLE:
        assert np.isnan(angular_bound(1 - 1e-9, rho, 1.0)) or angular_bound(1 - 1e-9, rho, 1.0) < cosine
        return
    assert float(angular_bound(2 * threshold - 1, rho, 1.0)) >= cosine
    below = 2 * (threshold - 1e-3) - 1
    assert below <= 0 or not float(angular_bound(below, rho, 1.0)) >= cosine


def test_thresholds_grow_with_what_is_asked():
    by_cosine = [certified_threshold(FCSB, c, 0.3, 0.5) for c in (0.0, 0.3, 0.6, 0.9)]
    by_radius = [certified_threshold(ANGULAR, 0.5, r, 0.5) for r in (0.1, 0.2, 0.4, 0.8)]
    assert by_cosine == sorted(set(by_cosine)) and by_radius == sorted(set(by_radius))


def test_radii_out_of_reach_are_impossible():
    assert certified_threshold(FCSB, 0.5, 60.0, 1.0) == IMPOSSIBLE
    assert certified_threshold(ANGULAR, 0.5, 60.0, 1.0) == IMPOSSIBLE


@given(st.floats(-5, 5), st.floats(1e-6, 100))
def test_a_score_at_its_threshold_reaches_what_is_needed(needed, length):
    threshold = score_threshold(needed, length)
    assert TRIVIAL <= threshold <= IMPOSSIBLE
    if threshold < IMPOSSIBLE:
        # the projection that the mean score stands for, in exact arithmetic up to one rounding
        assert length * (2 * threshold - 1) >= needed - 1e-12 * (1 + abs(needed) + length)
    else:
        assert needed >= length * (1 - 1e-12)


@pytest.mark.parametrize(
    ("needed", "length"),
    [(math.nan, 1.0), (math.inf, 1.0), (0.1, math.nan), (0.1, 0.0), (0.1, -1.0), (1.0, 1.0), (2.0, 1.0)],
)
def test_what_cannot_be_computed_or_reached_is_impossible(needed, length):
    assert score_threshold(needed, length) == IMPOSSIBLE


def test_what_always_holds_is_trivial():
    assert score_threshold(-1.5, 1.0) == TRIVIAL
