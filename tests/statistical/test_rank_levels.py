"""Which level a class radius and a rank radius need: the argument of ``rank_radius``, by counting.

Scores are votes and bounds are Clopper-Pearson's, which use up their level, so that a wrong split shows. A test
fails on sound code with probability below 1e-5, over the choice of its seed.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import binom

from smoothcert.certificates import margin_radius, rank_radius
from smoothcert.statistics import lower_bound

REPETITIONS, DRAWS, ALPHA = 3000, 400, 0.05


def radii(rivals: int, alpha: float, seed: int, *, shared: bool) -> tuple[np.ndarray, float]:
    """Radii of rivals that are all equally near, from margins of mean 0.4; and the true radius."""
    generator = np.random.default_rng(seed)
    noise = generator.random((REPETITIONS, 1 if shared else rivals, DRAWS))
    votes = np.broadcast_to(noise < 0.7, (REPETITIONS, rivals, DRAWS)).astype(np.float64)
    margin = 2 * lower_bound(votes, alpha, "clopper_pearson") - 1
    # the pilot points along the margin and adds nothing: T1 alone
    distinct, place = np.unique(margin, return_inverse=True)
    found = margin_radius(distinct, distinct, -1.0, 1.0)[place].reshape(margin.shape)
    return np.nan_to_num(found), float(margin_radius(0.4, 0.4, -1.0, 1.0))


def misses(rivals: int, k: int, alpha: float, seed: int, *, shared: bool = False) -> int:
    found, true = radii(rivals, alpha, seed, shared=shared)
    return int(np.sum(rank_radius(found, k) > true))


def allowed(rate: float) -> int:
    return int(binom.ppf(1 - 1e-6, REPETITIONS, rate))


def test_a_class_radius_needs_no_split_over_its_rivals() -> None:
    """However many rivals, and whether they see the same noise or not."""
    assert misses(1, 1, ALPHA, 0) <= allowed(ALPHA)
    assert misses(8, 1, ALPHA, 1) <= allowed(ALPHA)
    assert misses(8, 1, ALPHA, 2, shared=True) <= allowed(ALPHA)


def test_a_rank_radius_needs_its_level_split_over_the_rank() -> None:
    """Rank at most 2 of two near rivals is false if either bound is: at the full level, too often."""
    assert misses(2, 2, ALPHA / 2, 3) <= allowed(ALPHA)
    assert misses(2, 2, ALPHA, 4) > allowed(ALPHA)
    # but not over the number of rivals
    assert misses(8, 2, ALPHA / 2, 5) <= allowed(ALPHA)
