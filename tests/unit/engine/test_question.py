"""What is asked of a pair: sound statements, unit directions, and nothing that opens where it should be closed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from smoothcert.certificates import dual_direction
from smoothcert.engine import Texts
from smoothcert.engine.layout import plan_layout
from smoothcert.engine.question import Questioner, scalar_scores
from smoothcert.engine.thresholds import IMPOSSIBLE, TRIVIAL
from smoothcert.errors import NonFiniteError

RNG = np.random.default_rng(0)
TARGETS = (
    {"certificate": "class", "radius": 0.1},
    {"certificate": "caption", "radius": 0.1, "cosine": 0.2},
    {"certificate": "retrieval", "radius": 0.1},
    {"certificate": "fcsb", "radius": 0.1, "cosine": 0.5},
    {"certificate": "angular", "radius": 0.1, "cosine": 0.5},
)


def unit(*shape):
    vectors = RNG.standard_normal(shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def draws_of(mean, count=15):
    """Pilot draws with this mean: two mirror images of each other beside it, as long as unit vectors are."""
    length = max(np.linalg.norm(mean), 1e-9)
    aside = unit(len(mean))
    aside -= (aside @ mean) * mean / length**2
    aside *= math.sqrt(max(0.0, 1.0 - length**2)) / np.linalg.norm(aside)
    pairs = [mean + side * aside for side in (1.0, -1.0)] * (count // 2)
    return np.array(pairs)


def questioner(make, texts, **changes):
    certify = make.section(**({"sigma": 0.5, "targets": TARGETS} | changes))
    layout = plan_layout(
        certify,
        classes=len(texts.labels),
        pool=len(texts.pool_captions),
        captions=texts.captions,
        retrieval_k=texts.retrieval_k,
    )
    return Questioner(layout, texts, certify), layout


def texts_of(d=16, classes=6, pool=12, k=1):
    return Texts(
        tuple(f"c{i}" for i in range(classes)),
        unit(classes, d),
        tuple(f"caption {i}" for i in range(pool)),
        unit(pool, d),
        k,
        True,
    )


def test_all_directions_are_unit_vectors_and_the_fixed_ones_are_where_the_layout_says(make):
    texts = texts_of()
    asker, layout = questioner(make, texts)
    mean, clean, caption = 0.9 * unit(16), unit(16), unit(16)
    q = asker.ask(draws_of(mean, 15), clean, caption, ("another caption",))
    np.testing.assert_allclose(np.linalg.norm(q.directions, axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(q.directions[0], mean / 0.9, atol=1e-12)
    np.testing.assert_array_equal(q.directions[1], clean)
    np.testing.assert_array_equal(q.directions[2], caption)
    assert q.clean_alignment == pytest.approx(mean @ clean / 0.9)
    assert q.caption_alignment == pytest.approx(mean @ caption / 0.9)
    assert q.predicted == np.argmax(texts.class_features @ mean)
    assert q.clean_class == np.argmax(texts.class_features @ clean)
    assert q.rank == 1 + np.sum(texts.pool_features @ mean >= caption @ mean)
    assert (q.thresholds >= 0).all() and (q.thresholds <= 1).all()
    assert len(q.directions) == layout.directions and len(q.thresholds) == len(layout.test_direction)


def test_the_measured_rivals_are_the_nearest_and_the_others_are_bounded_by_the_worst(make):
    texts = texts_of(classes=9, pool=20)
    asker, layout = questioner(make, texts, rivals=3)
    mean = unit(16)
    q = asker.ask(draws_of(mean, 15), unit(16), unit(16), ())
    own = texts.class_features[q.predicted]
    margins = {}
    for c, feature in enumerate(texts.class_features):
        if c != q.predicted:
            margins[c] = (own - feature) @ mean / np.linalg.norm(own - feature)
    nearest = sorted(margins, key=margins.get)
    assert list(q.classes.measured) == nearest[:3]
    # rounded up, never down: a larger alignment is the safe side
    assert 0 <= q.classes.others_alignment + margins[nearest[3]] <= 2e-6
    first = layout.first_class_rival
    for place, c in enumerate(nearest[:3]):
        away = (own - texts.class_features[c]) / np.linalg.norm(own - texts.class_features[c])
        np.testing.assert_allclose(q.directions[first + place], away, atol=1e-12)


def test_duplicates_of_the_own_caption_are_no_rivals(make):
    texts = texts_of(pool=12)
    asker, _ = questioner(make, texts, rivals=11)
    own = texts.pool_features[4]
    q = asker.ask(draws_of(own, 15), own, own, ("caption 4",))
    assert 4 not in q.pool.measured and len(q.pool.measured) == 11
    assert q.rank == 1
    stranger = asker.ask(draws_of(own, 15), own, own, ("not in the pool",))
    # the same feature under another text is a rival that can never be beaten
    assert 4 in stranger.pool.measured and stranger.rank == 2


def test_a_rival_with_the_same_feature_is_never_certified(make):
    """Class 2 equals class 0 in feature: whoever is predicted among them cannot be told from the other."""
    features = unit(5, 16)
    features[2] = features[0]
    texts = Texts(tuple("abcde"), features, captions=True)
    asker, layout = questioner(make, texts, targets=TARGETS[:1])
    q = asker.ask(draws_of(features[0] * 0.99, 15), features[0], unit(16), ())
    tests = layout.targets[0].must
    assert q.thresholds[list(tests)].max() == IMPOSSIBLE
    assert q.classes.alignment.max() == 1.0
    # measured or not, the twin stays a rival
    asker, layout = questioner(make, texts, targets=TARGETS[:1], rivals=1)
    q = asker.ask(draws_of(features[0] * 0.99, 15), features[0], unit(16), ())
    assert q.thresholds[list(layout.targets[0].must)].max() == IMPOSSIBLE


def test_a_target_without_its_feature_fails_closed(make):
    """No caption for this pair: caption and retrieval tests cannot be passed by any draws."""
    asker, layout = questioner(make, texts_of())
    q = asker.ask(draws_of(unit(16), 15), unit(16), None, ())
    for item in layout.targets:
        tests = list(item.must) + list(item.rivals)
        if item.target.certificate in ("caption", "retrieval"):
            assert (q.thresholds[tests] == IMPOSSIBLE).all()
        elif item.target.certificate in ("fcsb", "angular"):
            assert (q.thresholds[tests] < IMPOSSIBLE).all()


def test_places_without_a_rival_are_trivial_and_only_those(make):
    """A pair whose own captions thin the pool out has fewer rivals than the layout has places."""
    texts = texts_of(pool=5)
    asker, layout = questioner(make, texts, targets=TARGETS[2:3])
    item = layout.targets[0]
    assert len(item.rivals) == 5
    q = asker.ask(draws_of(unit(16), 15), unit(16), texts.pool_features[0], ("caption 0", "caption 3"))
    assert (q.thresholds[list(item.rivals[:3])] > TRIVIAL).all()
    assert (q.thresholds[list(item.rivals[3:])] == TRIVIAL).all()


@pytest.mark.parametrize("broken", ["nan mean", "inf clean", "zero mean", "nan caption"])
def test_features_that_are_no_numbers_are_refused(make, broken):
    asker, _ = questioner(make, texts_of())
    given = {"mean": unit(16), "clean": unit(16), "caption": unit(16)}
    value, name = broken.split()
    given[name] = given[name].copy()
    given[name][slice(None) if value == "zero" else 3] = {"nan": math.nan, "inf": math.inf, "zero": 0.0}[
        value
    ]
    with pytest.raises(NonFiniteError):
        asker.ask(draws_of(given["mean"], 15), given["clean"], given["caption"], ())


def worst_projection(score, direction, away, rho, grid=2001):
    """Largest <m(x+delta), away> that an encoder in the plane can reach while its mean score is ``score``.

    For this, the dual with one multiplier is exact: minimise E|L away + k direction| - k (2 score - 1) over k.
    """
    z = np.linspace(-9, 9, grid)
    weight = np.exp(-(z**2) / 2)
    weight /= weight.sum()
    likelihood = np.exp(rho * z - rho**2 / 2)
    inner = float(direction @ away)

    def dual(log_k):
        k = math.exp(log_k)
        norm = np.sqrt(np.maximum(likelihood**2 + 2 * likelihood * k * inner + k**2, 0))
        return float(weight @ norm - k * (2 * score - 1))

    return minimize_scalar(dual, bounds=(-9, 9), method="bounded", options={"xatol": 1e-7}).fun


def worst_bent(score, pieces, rho, grid=481):
    """As ``worst_projection``, while the mean of a scalar of <u, -away> is ``score``.

    Each noise z may have any margin M, at random too, so that the dual with one multiplier k is exact: maximise k score
    + E min over M of (L M - k h(M)).
    """
    z = np.linspace(-8, 8, grid)
    weight = np.exp(-(z**2) / 2)
    weight /= weight.sum()
    likelihood = np.exp(rho * z - rho**2 / 2)
    margins = np.linspace(-1, 1, 601)
    h = scalar_scores((1 + margins)[None] / 2, pieces[None])[0]

    def dual(log_k):
        k = math.exp(log_k)
        return -(k * score + float(weight @ np.min(likelihood[:, None] * margins - k * h, axis=1)))

    return minimize_scalar(dual, bounds=(-6, 6), method="bounded", options={"xatol": 1e-5}).fun


@pytest.mark.parametrize("name", ["class", "caption", "retrieval"])
def test_passing_a_test_implies_its_target(make, name):
    """At the threshold the exact dual bound of the target is met; a little below it, it is not (nothing is wasted)."""
    target = next(t for t in TARGETS if t["certificate"] == name)
    texts = texts_of(classes=3, pool=3)
    asker, layout = questioner(make, texts, targets=(target,), rivals=5)
    item = layout.targets[0]
    rho = target["radius"] / 0.5
    level = -target["cosine"] if name == "caption" else 0.0
    reachable = bent = 0
    for _ in range(12):
        own = unit(16) if name != "class" else texts.class_features[RNG.integers(3)]
        mean = own + 0.4 * unit(16)
        mean *= 0.9 / np.linalg.norm(mean)
        q = asker.ask(draws_of(mean, 63), unit(16), own, ())
        if name == "caption":
            tests, aways = item.must, [-own]
        elif name == "class":
            tests, aways = item.must[1:], q.classes.directions
            assert q.thresholds[item.must[0]] == TRIVIAL  # all rivals are measured
        else:
            tests, aways = item.rivals, q.pool.directions
        for test, away in zip(tests, aways, strict=True):
            threshold = q.thresholds[test]
            if not TRIVIAL < threshold < IMPOSSIBLE:
                continue
            reachable += 1
            direction, pieces = q.directions[layout.test_direction[test]], q.scalars[test]
            if pieces[2:].any():
                bent += 1
                np.testing.assert_allclose(direction, -away, atol=1e-12)
                # between the margins of the grid h may lie above
                assert worst_bent(threshold, pieces, rho) <= level + 1e-3
                assert worst_bent(threshold - 0.02, pieces, rho) > level
                continue
            assert worst_projection(threshold, direction, away, rho) <= level + 1e-6
            assert worst_projection(threshold - 0.01, direction, away, rho) > level
    assert reachable >= 10 and bent >= 3


@pytest.mark.parametrize("name", ["class", "retrieval"])
def test_one_scalar_of_the_smallest_margin_covers_the_rivals_that_are_not_measured(make, name):
    """At its threshold no encoder can turn a margin whose scalar has that mean, and the scalar never falls.

    So the mean over the smallest margin is at most that over each. The pilot direction alone proves far less.
    """
    target = next(t for t in TARGETS if t["certificate"] == name)
    texts = texts_of(classes=40, pool=40)
    asker, layout = questioner(make, texts, targets=(target,), rivals=2, max_draws=1000)
    test = layout.targets[0].must[0]
    assert layout.test_direction[test] == layout.directions + layout.others.index(f"{name}_rest")
    features = texts.class_features if name == "class" else texts.pool_features
    checked = before = 0
    for _ in range(10):
        own = features[RNG.integers(40)]
        mean = own + 0.2 * unit(16)
        mean *= 0.95 / np.linalg.norm(mean)
        draws = draws_of(mean, 63)
        q = asker.ask(draws, unit(16), own, ())
        rivals = q.classes if name == "class" else q.pool
        threshold, pieces = q.thresholds[test], q.scalars[test]
        assert pieces[1] >= 0 and (pieces[2 + (len(pieces) - 2) // 2 :] >= 0).all()
        if not TRIVIAL < threshold < IMPOSSIBLE:
            continue
        assert worst_bent(threshold, pieces, 0.2) <= 1e-3
        rest = set(range(40)) - set(rivals.measured) - rivals.excluded
        away = np.array([(rivals.own - features[c]) / np.linalg.norm(rivals.own - features[c]) for c in rest])
        smallest = (1 + np.min(draws @ away.T, axis=1)) / 2
        np.testing.assert_allclose(rivals.rest_pilot, smallest, atol=1e-6)
        checked += scalar_scores(smallest[None], pieces[None]).mean() > threshold
        gram = np.array([[1.0, rivals.others_alignment], [rivals.others_alignment, 1.0]])
        weights, needed = dual_direction(gram, np.array([0.95]), target["radius"], 0.5)
        before += 0.95 * weights[0] > needed
    assert checked >= 8 and checked >= before


def test_features_that_the_noise_does_not_move_are_asked_about_like_others(make):
    """Means of equal unit vectors come out longer than 1 by rounding, in every other direction."""
    texts = texts_of(d=16)
    asker, _ = questioner(make, texts)
    for _ in range(80):
        feature = unit(16)
        mean = np.mean([feature] * 15, axis=0)
        question = asker.ask(draws_of(mean * (1 + 3e-16), 15), feature, unit(16), ("another caption",))
        assert np.all((question.thresholds >= 0) & (question.thresholds <= IMPOSSIBLE))
