"""Bounds from scalars of the draws, of many rivals at the price of one, against the same from each rival by itself."""

import numpy as np
import pytest

from smoothcert.certificates import normal_scalar
from smoothcert.engine.distribution import Draws, ScalarMeter, binding, join_draws, pool
from smoothcert.statistics import lower_bound

SIGMA, ALPHA, PILOT, FRESH = 0.5, 0.01, 40, 400
RNG = np.random.default_rng(3)


def rivals(centres, spread=0.05, rest=False):
    """Scores of draws towards rivals with these mean margins."""
    margins = np.array(centres)[:, None] + spread * RNG.standard_normal((len(centres), PILOT + FRESH))
    scores = np.clip((1 + margins) / 2, 0, 1)
    return Draws(scores[:, :PILOT], scores[:, PILOT:], np.full(len(centres), FRESH), rest)


@pytest.fixture
def meter(make):
    section = make.section(sigma=SIGMA, alpha=ALPHA, max_draws=FRESH, radii=(0.1, 0.2, 0.4, 0.8))
    return ScalarMeter(section, ALPHA)


def test_pooled_rivals_are_the_smallest_of_each_draw_and_those_that_sharing_would_hurt_are_left_alone():
    draws = rivals([0.1, 0.1, 0.6, 0.7, 0.7, 0.8])
    # the minimum of two alike is lower than either
    pooled = pool(draws)
    assert pooled.rest and len(pooled.counts) == 2
    for whole, part in ((draws.pilot, pooled.pilot), (draws.fresh, pooled.fresh)):
        assert np.array_equal(part[0], whole[0])
        assert [min(whole[1:, i]) for i in range(whole.shape[1])] == part[1].tolist()
    # without any rival near the first, or where the last ones bind anyway, one row is enough
    assert (
        len(pool(rivals([0.1, 0.9, 0.9])).counts) == len(pool(rivals([0.9, 0.9, 0.1], rest=True)).counts) == 1
    )
    alike = rivals([0.1] * 8)
    assert len(pool(alike).counts) == 4 and len(pool(alike, most=2).counts) == 3
    few = rivals([0.1] * 3)
    assert pool(few) is few


def test_a_pooled_bound_is_below_the_mean_of_every_rival_that_it_speaks_of(meter):
    """Whatever phi was chosen: it never falls, so that of the smallest margin it is the smallest."""
    for _ in range(10):
        draws = rivals(RNG.uniform(0.1, 0.6, 8))
        score, laws, _ = meter.measure(pool(draws), 0.2)
        scalar, last = normal_scalar(laws), len(laws) - 1
        for row in range(8):
            own = normal_scalar(laws[[min(row, last)]]).scores(2 * draws.fresh[[row]] - 1)
            assert lower_bound(own, ALPHA)[0] >= 0 and own.mean() >= score[min(row, last)]
        assert np.all(
            np.diff(scalar.values(np.linspace(-1, 1, 50)[None] + np.zeros((last + 1, 1)), np.zeros((1, 1))))
            >= 0
        )


def test_the_kth_smallest_bound_binds_and_a_rest_counts_k_times():
    for _ in range(300):
        n, k = int(RNG.integers(2, 7)), int(RNG.integers(1, 4))
        bounds = RNG.permutation(n) / 10 - 0.2
        bounds[RNG.random(n) < 0.2] = np.nan
        known = np.nan_to_num(bounds, nan=-2.0)
        for rest in (False, True):
            if not rest and n < k:
                continue
            every = sorted([*known, *([known[-1]] * (k - 1) if rest else [])])
            assert known[binding(bounds, k, rest)] == every[k - 1]


def test_far_rivals_cost_nothing_and_a_near_one_among_them_binds(meter):
    near = [0.3, 0.35, 0.4]
    alone = meter.against([rivals(near)], 1)
    far = meter.against([rivals([*near, *[0.9] * 6])], 1)
    assert far.bound[0, :2] == pytest.approx(alone.bound[0, :2], abs=0.03)
    hidden = meter.against([rivals([*near, *[0.9] * 5, 0.1])], 1)
    assert np.isnan(hidden.bound[0, 1]) or hidden.bound[0, 1] < 0.1 < far.bound[0, 1]
    # without rivals there is nothing to say
    assert np.isnan(meter.against([None], 1).bound).all()


@pytest.mark.parametrize("k", [2, 3])
def test_of_a_rank_a_rest_that_may_overtake_is_enough_to_say_nothing(meter, k):
    strong, weak = [0.6] * 4, [0.6] * 3 + [-0.1]
    assert meter.against([rivals(strong, rest=True)], k).bound[0, 0] > 0.3
    assert np.isnan(meter.against([rivals(weak, rest=True)], k).bound).all()
    # one measured rival may overtake
    assert meter.against([rivals(weak)], k).bound[0, 0] > 0.3


def test_pairs_side_by_side_give_what_each_gives_alone(meter):
    pairs = [rivals([0.3, 0.5]), None, rivals([0.2, 0.3, 0.4, 0.5, 0.6])]
    together = meter.against(pairs, 1)
    for i, each in enumerate(pairs):
        alone = meter.against([each], 1)
        assert together.bound[i] == pytest.approx(alone.bound[0], abs=1e-5, nan_ok=True)
    short = Draws(pairs[0].pilot, pairs[0].fresh[:, :100], np.full(2, 100))
    assert join_draws([short, pairs[2]]).fresh.shape == (7, FRESH)
