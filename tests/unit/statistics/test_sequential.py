"""Sequential tests against the formula computed slowly, in every cut, and by exact sums."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from smoothcert.statistics import CERTIFIED, REFUTED, UNDECIDED, SequentialTest, lower_bound

ALPHA, FUTILITY = 0.05, 0.1


def run(thresholds, scores, alpha=ALPHA, cuts=None):
    """All draws of all slots, whole or in pieces."""
    test = SequentialTest(thresholds, alpha, FUTILITY)
    slots = range(len(thresholds))
    for piece in cuts or [slice(None)]:
        part = scores[:, piece]
        test.update(part, slots=slots, counts=[part.shape[1]] * len(thresholds))
    return test


def expected(reference, draws, threshold, alpha=ALPHA):
    """Decision and log e-value of one test, by loops."""
    stakes = reference.stakes(draws, alpha)
    above = reference.log_capitals(draws, alpha, threshold, stakes=stakes)
    below = reference.log_capitals_below(draws, alpha, threshold, stakes=stakes)
    up = reference.first(above, math.log(1 / alpha) + 1e-9)
    down = reference.first(below, math.log(1 / FUTILITY) + 1e-9)
    if up is not None and (down is None or up <= down):
        return CERTIFIED, above[up]
    if down is not None:
        return REFUTED, above[down]
    return UNDECIDED, above[-1]


def sample(rng, slots=40, n=90):
    """Scores of three tests a slot, with thresholds from far below to far above the mean."""
    means = rng.uniform(0.3, 0.97, (slots, 1, 3))
    scores = rng.beta(12 * means, 12 * (1 - means), (slots, n, 3))
    scores[::3] = scores[::3] > 0.6
    thresholds = np.clip(scores.mean(axis=1) + rng.choice([-0.25, -0.1, 0.0, 0.1], (slots, 3)), 0.01, 0.99)
    return thresholds, scores


def test_every_slot_decides_as_the_formula_does(reference):
    thresholds, scores = sample(np.random.default_rng(0))
    test = run(thresholds, scores)
    for slot, number in np.ndindex(thresholds.shape):
        decision, log_e = expected(
            reference, scores[slot, :, number].tolist(), float(thresholds[slot, number])
        )
        assert test.decisions[slot, number] == decision
        assert test.log_e_values[slot, number] == pytest.approx(log_e, abs=1e-9)
    assert {*test.decisions.ravel().tolist()} == {CERTIFIED, UNDECIDED, REFUTED}


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    inner=st.sets(st.integers(1, 59), max_size=12),
)
def test_the_cut_of_the_draws_changes_nothing(reference, seed, inner):
    thresholds, scores = sample(np.random.default_rng(seed), slots=6, n=60)
    whole = run(thresholds, scores)
    pieces = run(thresholds, scores, cuts=reference.cuts(60, inner))
    np.testing.assert_array_equal(pieces.decisions, whole.decisions)
    np.testing.assert_allclose(pieces.log_e_values, whole.log_e_values, rtol=0, atol=1e-9)


def test_one_draw_at_a_time_changes_nothing(reference):
    thresholds, scores = sample(np.random.default_rng(4))
    whole, single = run(thresholds, scores), run(thresholds, scores, cuts=reference.cuts(90, range(1, 90)))
    np.testing.assert_array_equal(single.decisions, whole.decisions)
    np.testing.assert_allclose(single.log_e_values, whole.log_e_values, rtol=0, atol=1e-9)


def test_ragged_counts_and_any_order_of_slots_are_the_same_draws():
    rng = np.random.default_rng(5)
    thresholds, scores = sample(rng)
    whole = run(thresholds, scores)
    test = SequentialTest(thresholds, ALPHA, FUTILITY)
    fed = np.zeros(40, dtype=int)
    while (fed < 90).any():
        slots = rng.permutation(np.flatnonzero(fed < 90))[:11].tolist()
        counts = [int(min(rng.integers(0, 20), 90 - fed[slot])) for slot in slots]
        chunk = np.full((len(slots), 20, 3), np.nan)  # what lies beyond the count is ignored, whatever it is
        for row, (slot, count) in enumerate(zip(slots, counts, strict=True)):
            chunk[row, :count] = scores[slot, fed[slot] : fed[slot] + count]
            fed[slot] += count
        test.update(chunk, slots=slots, counts=np.array(counts))
    np.testing.assert_array_equal(test.decisions, whole.decisions)
    np.testing.assert_allclose(test.log_e_values, whole.log_e_values, rtol=0, atol=1e-9)


def test_resets_in_any_order_of_slots_are_those_of_new_tests():
    thresholds, scores = sample(np.random.default_rng(7))
    scores[3, 50, 1] = np.nan
    test = run(thresholds, scores)
    test.reset([5, 3], thresholds[:2])
    test.update(scores[:2, :40], slots=[3, 5], counts=[40, 12])
    for slot, threshold, draws in ((3, thresholds[1], scores[0, :40]), (5, thresholds[0], scores[1, :12])):
        fresh = run(threshold[None], draws[None])
        np.testing.assert_array_equal(test.decisions[slot], fresh.decisions[0])
        np.testing.assert_allclose(test.log_e_values[slot], fresh.log_e_values[0], rtol=0, atol=1e-9)


def test_scores_of_single_precision_are_summed_in_double():
    thresholds, scores = sample(np.random.default_rng(8))
    single = scores.astype(np.float32)
    found, same = run(thresholds, single), run(thresholds, single.astype(np.float64))
    assert found.log_e_values.dtype == np.float64
    np.testing.assert_array_equal(found.log_e_values, same.log_e_values)


def test_a_decision_is_final_until_the_slot_is_reset():
    good, bad = np.full((1, 200, 1), 0.95), np.full((1, 400, 1), 0.05)
    test = SequentialTest(np.array([[0.6], [0.6]]), ALPHA, FUTILITY)
    test.update(good, slots=[0], counts=[200])
    test.update(good[:, :3], slots=[1], counts=[3])
    assert test.decisions.ravel().tolist() == [CERTIFIED, UNDECIDED]
    value, other = test.log_e_values.ravel().tolist()
    assert math.log(1 / ALPHA) <= value < math.log(1 / ALPHA) + math.log(3)  # frozen at the crossing
    test.update(bad, slots=[0], counts=[400])
    assert test.decisions[0, 0] == CERTIFIED and test.log_e_values[0, 0] == value
    test.reset([0], np.array([[0.6]]))
    assert test.decisions[0, 0] == UNDECIDED and test.log_e_values[0, 0] == 0.0
    test.update(bad, slots=[0], counts=[400])
    assert test.decisions[0, 0] == REFUTED
    assert test.log_e_values[1, 0] == other  # the neighbour noticed nothing
    test.update(good, slots=[0], counts=[200])
    assert test.decisions[0, 0] == REFUTED


def test_the_first_of_two_crossings_inside_an_update_counts():
    """Bad draws first, then very many good ones: work would have ended before the good ones were drawn."""
    draws = np.concatenate([np.zeros(40), np.ones(4000)])
    for order, decision in ((draws, REFUTED), (draws[::-1], CERTIFIED)):
        test = run(np.array([[0.2]]), order[None, :, None].copy())
        assert test.decisions[0, 0] == decision
    bad_first = SequentialTest(np.array([[0.2]]), ALPHA, 1e-300)
    bad_first.update(draws[None, :, None], slots=[0], counts=[4040])
    assert bad_first.decisions[0, 0] == CERTIFIED  # it does cross later


def test_a_reset_slot_is_as_good_as_a_new_one():
    thresholds, scores = sample(np.random.default_rng(9))
    test = run(thresholds[::-1].copy(), scores[::-1])
    test.reset(range(40), thresholds)
    test.update(scores, slots=range(40), counts=[90] * 40)
    fresh = run(thresholds, scores)
    np.testing.assert_array_equal(test.decisions, fresh.decisions)
    np.testing.assert_array_equal(test.log_e_values, fresh.log_e_values)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 1.0 + 1e-9, -1e-9, 7.0])
def test_what_is_no_score_never_certifies(poison):
    scores = np.ones((3, 60, 2))
    scores[1, 0, 0] = poison
    test = SequentialTest(np.full((3, 2), 0.5), ALPHA, FUTILITY)
    for _ in range(3):
        test.update(scores, slots=range(3), counts=[60] * 3)
        scores[1, 0, 0] = 1.0  # good draws afterwards do not heal it
    assert test.decisions.tolist() == [[1, 1], [0, 1], [1, 1]]
    assert test.log_e_values[1, 0] == -math.inf
    assert np.isfinite(np.delete(test.log_e_values.ravel(), 2)).all()
    test.reset([1], np.full((1, 2), 0.5))
    test.update(np.ones((1, 60, 2)), slots=[1], counts=[60])
    assert (test.decisions == CERTIFIED).all()


def test_thresholds_that_need_no_draws():
    thresholds = np.array([[0.0, -0.5, -math.inf, 1.0, 1.5, math.inf]])
    scores = np.ones((1, 50, 6))
    test = SequentialTest(thresholds, ALPHA, FUTILITY)
    for _ in range(2):
        assert test.decisions.tolist() == [[1, 1, 1, -1, -1, -1]]
        assert test.log_e_values.tolist() == [[math.inf] * 3 + [0.0] * 3]
        test.update(scores, slots=[0], counts=[50])


@pytest.mark.parametrize("threshold", [5e-324, 1e-300, 1e-12, 1 - 2.0**-53])
def test_thresholds_at_the_edge_stay_finite(threshold):
    scores = np.stack([np.zeros((1, 300)), np.ones((1, 300))], axis=-1)
    test = run(np.full((1, 2), threshold), scores)
    assert np.isfinite(test.log_e_values).all()
    assert test.decisions[0, 0] != CERTIFIED  # zeros never show a positive mean
    if threshold > 0.5:
        assert test.decisions[0, 1] != CERTIFIED  # ones never show a mean of one


def test_every_test_has_its_own_level(reference):
    levels = [0.2, 0.05, 0.001]
    draws = (np.random.default_rng(1).random(400) < 0.9).astype(float)
    scores = np.repeat(draws[None, :, None], 3, axis=2)
    moments = []
    test = SequentialTest(np.full((1, 3), 0.75), levels, FUTILITY)
    for t in range(400):
        test.update(scores[:, t : t + 1], slots=[0], counts=[1])
        moments.append(test.decisions[0] == CERTIFIED)
    # stakes are tuned to the strictest level; the capital is one and the same
    capital = reference.log_capitals(draws.tolist(), min(levels), 0.75)
    for number, level in enumerate(levels):
        first = reference.first(capital, math.log(1 / level))
        assert reference.first((float(moment[number]) for moment in moments), 1.0) == first
        assert test.log_e_values[0, number] == pytest.approx(capital[first], abs=1e-9)


@settings(max_examples=60)
@given(
    draws=arrays(np.float64, st.integers(1, 60), elements=st.floats(0.0, 1.0)),
    threshold=st.floats(0.01, 0.99),
)
def test_a_bound_above_the_threshold_means_certified(draws, threshold):
    """The bound reported at the stop and the decision are one and the same bet."""
    test = SequentialTest(np.array([[threshold]]), ALPHA, 1e-300)
    test.update(draws[None, :, None], slots=[0], counts=[draws.size])
    if lower_bound(draws, ALPHA) > threshold + 1e-9:
        assert test.decisions[0, 0] == CERTIFIED


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.8, 0.95])
def test_the_e_value_at_the_stop_is_one_on_average(threshold):
    """All 4,096 sequences of 12 coins: at a mean equal to the threshold the stopped capital is a martingale."""
    draws = np.array(list(itertools.product((0.0, 1.0), repeat=12)))
    test = SequentialTest(np.full((4096, 1), threshold), 0.2, 0.3)
    test.update(draws[..., None], slots=range(4096), counts=[12] * 4096)
    e_values, decisions = np.exp(test.log_e_values[:, 0]), test.decisions[:, 0]
    assert ((e_values >= 5.0) == (decisions == CERTIFIED)).all()
    for mean in (threshold, threshold - 0.05, threshold - 0.1):
        chance = np.prod(np.where(draws == 1.0, mean, 1.0 - mean), axis=1)
        average = float(chance @ e_values)
        assert average == pytest.approx(1.0, abs=1e-9) if mean == threshold else average < 1.0
        assert chance[decisions == CERTIFIED].sum() <= 0.2
    for mean in (threshold, min(threshold + 0.05, 1.0)):
        chance = np.prod(np.where(draws == 1.0, mean, 1.0 - mean), axis=1)
        assert chance[decisions == REFUTED].sum() <= 0.3


def test_nothing_to_feed_is_no_draw():
    test = SequentialTest(np.full((2, 1), 0.5), ALPHA, FUTILITY)
    test.update(np.zeros((0, 4, 1)), slots=[], counts=[])
    test.update(np.zeros((2, 0, 1)), slots=[0, 1], counts=[0, 0])
    test.update(np.zeros((2, 4, 1)), slots=[0, 1], counts=[0, 0])
    assert test.log_e_values.tolist() == [[0.0], [0.0]]
    empty = SequentialTest(np.zeros((3, 0)), [], FUTILITY)
    empty.update(np.zeros((3, 5, 0)), slots=[0, 1, 2], counts=[5, 5, 5])
    assert empty.decisions.shape == (3, 0)


@pytest.mark.parametrize(
    ("thresholds", "alpha", "futility"),
    [
        (np.zeros(3), 0.1, 0.1),
        (np.zeros((3, 1), dtype=np.float32), 0.1, 0.1),
        (np.full((1, 1), np.nan), 0.1, 0.1),
        (np.zeros((3, 2)), [0.1], 0.1),
        (np.zeros((3, 2)), [0.1, 1.0], 0.1),
        (np.zeros((3, 2)), 0.0, 0.1),
        (np.zeros((3, 2)), math.nan, 0.1),
        (np.zeros((3, 2)), 0.1, 0.0),
    ],
)
def test_tests_that_make_no_sense_are_refused(thresholds, alpha, futility):
    with pytest.raises(ValueError, match="thresholds must|alpha="):
        SequentialTest(thresholds, alpha, futility)


@pytest.mark.parametrize(
    ("scores", "slots", "counts", "message"),
    [
        ((2, 5, 2), [0], [5], "do not fit"),
        ((1, 5, 3), [0], [5], "do not fit"),
        ((2, 5, 2), [0, 1], [5], "do not fit"),
        ((2, 5, 2), [1, 1], [5, 5], r"slots=\[1, 1\] names a slot twice"),
        ((2, 5, 2), [0, 1], [5, 6], r"counts=\[5, 6\] must be between 0 and 5"),
        ((2, 5, 2), [0, 1], [-1, 5], r"counts=\[-1, 5\]"),
    ],
)
def test_updates_that_make_no_sense_are_refused_and_change_nothing(scores, slots, counts, message):
    test = SequentialTest(np.full((3, 2), 0.5), ALPHA, FUTILITY)
    with pytest.raises(ValueError, match=message):
        test.update(np.ones(scores), slots=slots, counts=counts)
    assert (test.log_e_values == 0.0).all()


@pytest.mark.parametrize("thresholds", [np.full((1, 2), np.nan), np.zeros(2), np.zeros((1, 2))])
def test_resets_that_make_no_sense_are_refused(thresholds):
    test = SequentialTest(np.full((3, 2), 0.5), ALPHA, FUTILITY)
    with pytest.raises(ValueError, match="thresholds"):
        test.reset([0, 1] if thresholds.size and not np.isnan(thresholds).any() else [0], thresholds)
