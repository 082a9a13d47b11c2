"""The engine against a straightforward loop, and against itself in every other arrangement."""

from __future__ import annotations

import itertools
import math
import threading

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import norm

from smoothcert.certificates import angular_bound
from smoothcert.encoders import KnownEncoder
from smoothcert.engine import DecodeAhead, Engine, Failure, Measurement, Texts
from smoothcert.engine.noise import NormalStream, Stream, noise_key

STAIRS = KnownEncoder.staircase((-0.4, 0.0, 0.3), (0.2, 0.5, 2.0, 3.2), feature_dim=5, seed=3)
ROTATING = KnownEncoder.rotating(1.0)
ROUNDING = 2e-7
"""Scores of the same draws in other batches: features of five numbers, each rounded to float32 (6e-8) once."""


# --- the independent loop -----------------------------------------------------------------------------------


def draws_by_hand(encoder, image, pair_id, stream, count, *, chunk, sigma, seed=0):
    """(count, d) unit features, encoded one by one in float64, noise drawn by its documented key."""
    features = []
    for index in itertools.count():
        source = NormalStream(noise_key(seed, pair_id, stream, index), torch.device("cpu"))
        for draw in range(chunk):
            if len(features) == count:
                return np.array(features)
            normal = torch.empty(image.shape)
            source.fill(normal)
            noise = normal.double().numpy() * sigma * 255.0
            x = (image.astype(np.float64) + np.rint(noise * 256.0) / 256.0) / 255.0
            if stream is Stream.PILOT and index == draw == 0:
                x, count = image / 255.0, count + 1  # the clean pass comes beside the pilot draws
            feature = encoder.encode_images(torch.from_numpy(x)[None].float())[0].double().numpy()
            features.append(feature / np.linalg.norm(feature))
    raise AssertionError


def by_hand(encoder, image, pair_id, certify, chunk):
    """Pilot direction, clean feature, and the scores along both."""
    settings = {"chunk": chunk, "sigma": certify.sigma, "seed": certify.seed}
    clean, *pilot = draws_by_hand(encoder, image, pair_id, Stream.PILOT, certify.pilot_draws, **settings)
    assert len(pilot) == certify.pilot_draws
    direction = np.mean(pilot, axis=0)
    direction /= np.linalg.norm(direction)
    fresh = draws_by_hand(encoder, image, pair_id, Stream.CERTIFY, certify.max_draws, **settings)
    return direction, clean, np.stack([(1 + fresh @ direction) / 2, (1 + fresh @ clean) / 2])


@pytest.mark.parametrize(
    ("chunk", "pilot_draws", "max_draws"), [(8, 15, 50), (8, 16, 48), (5, 3, 4), (1, 2, 3), (64, 15, 50)]
)
def test_scores_equal_a_plain_loop_over_single_draws(make, chunk, pilot_draws, max_draws):
    images = make.pixels(5)
    certify = make.section(pilot_draws=pilot_draws, max_draws=max_draws, seed=11)
    found = make.measured(make.run(STAIRS, certify, make.pairs(images), chunk=chunk))
    assert len(found) == 5
    for i, image in enumerate(images):
        m = found[f"data#{i}"]
        direction, clean, scores = by_hand(STAIRS, image, f"data#{i}", certify, chunk)
        np.testing.assert_allclose(m.question.directions[0], direction, atol=2e-7)
        np.testing.assert_allclose(m.question.directions[1], clean, atol=2e-7)
        np.testing.assert_allclose(m.scores, scores, atol=2e-7)
        assert m.scores.dtype == np.float64
        assert (m.draws, m.pilot_draws, m.stop_reason) == (max_draws, pilot_draws, "fixed")
        assert (m.token, m.decisions, m.log_e_values, m.pair.image) == (f"u{i // 3}", (), (), None)


def test_a_pair_does_not_depend_on_slots_lanes_order_or_company(make):
    images = make.pixels(11)
    certify = make.section(targets=({"certificate": "fcsb", "radius": 0.1, "cosine": 0.5},), max_draws=60)
    everyone = make.pairs(images)
    reference = make.measured(make.run(STAIRS, certify, everyone, slots=1))
    arrangements = [
        make.run(STAIRS, certify, everyone, slots=4),
        make.run(STAIRS, certify, everyone[::-1], slots=3),
        make.run(STAIRS, certify, everyone, slots=16),
        make.run(STAIRS, certify, everyone[4:5], slots=4),
        make.run(STAIRS, certify, everyone[::2], slots=5, lanes=2),
        make.run(STAIRS, certify, everyone, slots=7, lanes=3),
    ]
    assert len({m.draws for m in reference.values()}) > 1, "nothing stopped early: the test shows too little"
    for outcomes in arrangements:
        for pair_id, m in make.measured(outcomes).items():
            other = reference[pair_id]
            assert (m.draws, m.decisions) == (other.draws, other.decisions)
            np.testing.assert_allclose(m.scores, other.scores, rtol=0, atol=ROUNDING)
            np.testing.assert_allclose(
                m.question.directions, other.question.directions, rtol=0, atol=ROUNDING
            )
            # 60 bets of stakes below 8, each moved by the rounding of its score
            np.testing.assert_allclose(m.log_e_values, other.log_e_values, rtol=0, atol=60 * 8 * ROUNDING)


def test_every_pair_comes_out_exactly_once(make):
    ids = [p.pair_id for _, p in make.pairs(make.pixels(23))]
    for slots, lanes in [(1, 1), (4, 1), (4, 2), (30, 3)]:
        outcomes = make.run(
            ROTATING, make.section(max_draws=9), make.pairs(make.pixels(23)), slots=slots, lanes=lanes
        )
        assert sorted(o.pair.pair_id for o in outcomes) == sorted(ids)


def test_each_lane_has_one_core_and_who_comes_after_has_what_there_was_before(make):
    """One core each is for the lanes alone: attacks and later runs of the process begin threads of their own."""
    cores_of = {}

    class Noting(KnownEncoder):
        def _image_features(self, pixels):
            cores_of[threading.current_thread().name] = torch.get_num_threads()
            return super()._image_features(pixels)

    torch.set_num_threads(3)
    make.run(Noting.staircase(), make.section(max_draws=9), make.pairs(make.pixels(6)), slots=6, lanes=2)
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [3] and torch.get_num_threads() == 3
    assert {name: cores for name, cores in cores_of.items() if name.startswith("lane")} == {
        "lane_0": 1,
        "lane_1": 1,
    }


def test_nothing_in_nothing_out(make):
    assert make.run(ROTATING, make.section(), []) == []


# --- stopping -----------------------------------------------------------------------------------------------


def log_capital(scores, pilot, threshold, alpha, sign):
    """Log capital after every draw of the bet that the mean exceeds (sign 1) or undercuts (-1) the threshold.

    theory.md section 3 written out draw by draw, with Python floats, the stakes primed with pilot scores.
    """
    n, before, variance = len(pilot), pilot.mean(), pilot.var()
    at_limit = 300 * variance <= 2 * math.log(1 / alpha) * before**2
    shares = dict(zip((0.5, 0.9, 0.99), (0.05, 0.1, 0.85) if at_limit else (1 / 3,) * 3, strict=True))
    most = threshold if sign > 0 else 1 - threshold
    totals = {0.5: 0.0, 0.9: 0.0, 0.99: 0.0}
    seen, squares, path = 0.0, n * variance, []
    for i, y in enumerate(scores, start=1):
        spread = (0.0625 + squares) / (n + i - 1 + 0.25)
        stake = math.sqrt(2 * math.log(1 / alpha) / (spread * i * math.log(1 + i)))
        for c in totals:
            totals[c] += math.log1p(sign * min(stake, c / most) * (y - threshold))
        squares += (y - (n * before + seen) / (n + i - 1)) ** 2
        seen += y
        path.append(math.log(sum(shares[c] * math.exp(v) for c, v in totals.items())))
    return path


def first(path, level):
    return next((i for i, value in enumerate(path) if value >= math.log(1 / level)), None)


def test_targets_stop_where_brute_force_capitals_cross(make):
    """Decisions, draws and e-values of means and percentiles, from the scores of a fixed run of the same pairs."""
    sigma, alpha, futility, chunk, most = 0.5, 0.05, 0.02, 8, 300
    targets = (
        {"certificate": "angular", "radius": 0.05, "cosine": 0.9},
        {"certificate": "angular", "radius": 0.05, "cosine": 0.985},
        {"certificate": "clean_percentile", "radius": 0.05, "cosine": 0.6},
        {"certificate": "pilot_percentile", "radius": 0.2, "cosine": 0.6},
    )

    # smallest norm that certifies the cosine, as a mean score
    def missing(norm, target):
        return float(np.nan_to_num(angular_bound(norm, target["radius"], sigma))) - target["cosine"]

    needed = [(1 + brentq(missing, 0.1, 0.9999, args=(t,), xtol=1e-13)) / 2 for t in targets[:2]]
    # of a percentile q the share of draws that reach the cosine must be above 1 - Phi(Phi^-1(q) - rho)
    needed += [float(norm.sf(norm.ppf(0.6) - t["radius"] / sigma)) for t in targets[2:]]
    seen_as = [
        lambda found: found[0],
        lambda found: found[0],
        lambda found: (found[1] >= 0.8) * 1.0,
        lambda found: (found[0] >= 0.8) * 1.0,
    ]
    shared = {
        "percentile": 0.6,
        "alpha": alpha,
        "alpha_futility": futility,
        "max_draws": most,
        "pilot_draws": 8,
    }
    feed = make.pairs(make.pixels(24, seed=5))
    fixed = make.measured(make.run(STAIRS, make.section(**shared), feed, slots=8, chunk=chunk))
    adaptive = make.measured(
        make.run(STAIRS, make.section(**shared, targets=targets), feed, slots=8, chunk=chunk)
    )
    seen = set()
    for pair_id, m in adaptive.items():
        last = 0
        for threshold, see, decision, log_e in zip(needed, seen_as, m.decisions, m.log_e_values, strict=True):
            scores, pilot = see(fixed[pair_id].scores), see(m.question.pilot)
            above, below = (log_capital(scores, pilot, threshold, alpha, sign) for sign in (1, -1))
            up, down = first(above, alpha), first(below, futility)
            if up is not None and (down is None or up <= down):
                expected, moment = "certified", up
            elif down is not None:
                expected, moment = "refuted", down
            else:
                expected, moment = "budget", most - 1
            assert decision == expected
            assert log_e == pytest.approx(above[moment], abs=1e-6)
            last = max(last, moment + 1)
            seen.add((see is seen_as[0] or see is seen_as[1], decision))
        stops = min(most, -(-last // chunk) * chunk)
        assert m.draws == stops
        assert m.stop_reason == ("budget" if "budget" in m.decisions else "decided")
        np.testing.assert_allclose(m.scores, fixed[pair_id].scores[:, :stops], rtol=0, atol=ROUNDING)
    assert seen == {(mean, d) for mean in (True, False) for d in ("certified", "refuted", "budget")}, (
        "not every decision was met: the test shows too little"
    )


def test_a_freed_slot_is_taken_at_the_next_step(make):
    """30 equal pairs on 4 slots: ceil(30 / 4) rounds of steps and not one more; no step runs half empty before."""
    encoder = make.Touchy(ROTATING)
    certify = make.section(pilot_draws=15, max_draws=32)
    make.run(encoder, certify, make.pairs(make.pixels(30)), slots=4, chunk=8, ready=True)
    steps_per_pair = 2 + 4
    assert len(encoder.calls) == math.ceil(30 / 4) * steps_per_pair
    assert encoder.calls[: 7 * steps_per_pair] == [4 * 8] * (7 * steps_per_pair)
    assert encoder.calls[7 * steps_per_pair :] == [2 * 8] * steps_per_pair


def test_slots_of_unequal_pairs_never_idle_while_pairs_wait(make):
    """Adaptive counts differ from pair to pair: the total number of steps is that of a greedy schedule."""
    encoder = make.Touchy(STAIRS)
    certify = make.section(
        targets=({"certificate": "fcsb", "radius": 0.1, "cosine": 0.5},), max_draws=200, pilot_draws=15
    )
    feed = make.pairs(make.pixels(40, seed=2))
    found = make.measured(make.run(encoder, certify, feed, slots=4, chunk=8, ready=True))
    lengths = [2 + math.ceil(found[p.pair_id].draws / 8) for _, p in feed]
    assert len(set(lengths)) > 3
    slots = [0] * 4
    for length in lengths:  # in the order of the feed, to the slot that is free first
        earliest = slots.index(min(slots))
        slots[earliest] += length
    assert len(encoder.calls) == max(slots)
    assert sum(encoder.calls) == 8 * sum(lengths)


def test_only_draws_that_count_are_counted(make):
    engine = Engine(ROTATING, make.section(pilot_draws=15, max_draws=50), Texts(), slots=4, chunk=8, lanes=1)
    feed = DecodeAhead(make.pairs(make.pixels(6)), ROTATING, max_pixels=100)
    assert len(list(engine.run(feed))) == 6
    feed.close(), engine.close()
    assert engine.draws_done == 6 * (15 + 50)


# --- handing over -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [1, 2])
def test_outcomes_are_handed_over_while_the_feed_waits_for_more_work(make, lanes):
    """A driver hands out the next unit when one is done: the engine may not hold outcomes while it waits."""
    images = make.pixels(9)
    released = [threading.Event() for _ in images]
    waited = []

    def one_by_one():
        for i, item in enumerate(make.pairs(images)):
            # the next pair exists only once the last one's outcome was seen
            waited.append(i == 0 or released[i - 1].wait(timeout=20))
            yield item

    engine = Engine(ROTATING, make.section(max_draws=9), Texts(), slots=4, chunk=8, lanes=lanes)
    feed = DecodeAhead(one_by_one(), ROTATING, max_pixels=100)
    order = []
    for outcome in engine.run(feed):
        number = int(outcome.pair.pair_id.removeprefix("data#"))
        order.append(number)
        released[number].set()
    feed.close(), engine.close()
    assert all(waited) and order == list(range(9))


# --- errors -------------------------------------------------------------------------------------------------


def with_marked(make, count, marked):
    images = make.pixels(count)
    images[marked] = make.MARK
    return images


def split(outcomes):
    failures = {o.pair.pair_id: o for o in outcomes if isinstance(o, Failure)}
    return failures, {o.pair.pair_id: o for o in outcomes if isinstance(o, Measurement)}


def spoiled(value):
    def deed(features, marked):
        features = features.clone()
        features[marked] = value
        return features

    return deed


def raising(kind):
    def deed(features, marked):
        raise kind("this image is too much for me")

    return deed


def raising_alone_after(calls, kind):
    """Fails only on certify draws, after some calls."""
    count = itertools.count()

    def deed(features, marked):
        if next(count) >= calls:
            raise kind("later")
        return features

    return deed


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize(
    ("deed", "error"),
    [
        (spoiled(math.nan), "NonFiniteError"),
        (spoiled(math.inf), "NonFiniteError"),
        (spoiled(0.0), "NonFiniteError"),
        (raising(RuntimeError), "EncodeError"),
        (raising(ZeroDivisionError), "EncodeError"),
        (raising(torch.OutOfMemoryError), "OutOfMemoryError"),
        (raising_alone_after(3, RuntimeError), "EncodeError"),
        (raising_alone_after(3, torch.OutOfMemoryError), "OutOfMemoryError"),
    ],
)
def test_one_bad_pair_is_quarantined_and_the_others_lose_nothing(make, deed, error, lanes):
    certify = make.section(sigma=0.1, max_draws=40)
    images = with_marked(make, 10, [6])
    outcomes = make.run(make.Touchy(ROTATING, deed), certify, make.pairs(images), lanes=lanes)
    failures, good = split(outcomes)
    assert list(failures) == ["data#6"] and type(failures["data#6"].error).__name__ == error
    assert failures["data#6"].token == "u2" and failures["data#6"].error.stage == "encode"
    undisturbed = make.measured(make.run(ROTATING, certify, make.pairs(images)))
    assert len(good) == 9
    for pair_id, m in good.items():
        np.testing.assert_allclose(m.scores, undisturbed[pair_id].scores, atol=1e-6)
        assert m.draws == 40


def test_a_single_bad_draw_late_in_the_certify_stream_spoils_the_pair(make):
    """One NaN among 200 draws must not vanish in a mean, a clamp or a comparison."""
    count = itertools.count()

    def once(features, marked):
        features = features.clone()
        if next(count) == 20:
            features[np.flatnonzero(marked)[-1]] = math.nan
        return features

    for targets in ((), ({"certificate": "fcsb", "radius": 0.4, "cosine": 0.97},)):
        count = itertools.count()
        certify = make.section(sigma=0.1, max_draws=200, targets=targets, alpha=1e-9, alpha_futility=1e-9)
        outcomes = make.run(make.Touchy(ROTATING, once), certify, make.pairs(with_marked(make, 3, [1])))
        failures, good = split(outcomes)
        assert {k: type(v.error).__name__ for k, v in failures.items()} == {"data#1": "NonFiniteError"}
        assert len(good) == 2


@pytest.mark.parametrize("kind", [RuntimeError, torch.OutOfMemoryError])
def test_an_encoder_that_fails_on_everyone_ends_the_run(make, kind):
    from smoothcert.errors import EncoderError

    with pytest.raises(EncoderError, match="every pair") as caught:
        make.run(
            make.Touchy(ROTATING, raising(kind)),
            make.section(sigma=0.1),
            make.pairs(with_marked(make, 8, range(8))),
        )
    assert caught.value.remedy and "too much for me" in str(caught.value)


def test_an_encoder_in_training_mode_ends_the_run(make):
    """EncoderError is the encoder's own word that no feature of it can be trusted: not one pair's fault."""
    from smoothcert.errors import EncoderError

    def refuse(features, marked):
        raise EncoderError("in training mode")

    with pytest.raises(EncoderError, match="training mode"):
        make.run(
            make.Touchy(ROTATING, refuse), make.section(sigma=0.1), make.pairs(with_marked(make, 4, [2]))
        )


def test_a_caption_without_a_direction_quarantines_its_pair(make):
    known = KnownEncoder.rotating(1.0, text_angles={"fine": 0.3, "nothing": math.nan})
    captions = ["fine", "nothing", "fine"]
    outcomes = make.run(
        known, make.section(), make.pairs(make.pixels(3), captions), Texts(captions=True), slots=2
    )
    failures, good = split(outcomes)
    assert list(failures) == ["data#1"] and "caption" in str(failures["data#1"].error)
    assert sorted(good) == ["data#0", "data#2"]


def test_pairs_that_come_broken_are_passed_through_with_their_reason(make):
    from smoothcert.datasets import Pair
    from smoothcert.errors import CaptionError

    good = make.pairs(make.pixels(3))
    broken = Pair("data#x", "data", None, (), None, CaptionError("no caption"))
    cut = Pair("data#y", "data", b"\x89PNG not an image", ("c",), None, None)
    feed = [good[0], ("u9", broken), good[1], ("u9", cut), good[2]]
    failures, measured = split(make.run(ROTATING, make.section(), feed, slots=2))
    assert {k: type(v.error).__name__ for k, v in failures.items()} == {
        "data#x": "CaptionError",
        "data#y": "DecodeError",
    }
    assert len(measured) == 3


def test_a_feed_that_fails_as_a_whole_says_so(make):
    from smoothcert.errors import SourceError

    def failing():
        yield from make.pairs(make.pixels(3))
        raise SourceError("the disk is gone")

    with pytest.raises(SourceError, match="disk is gone"):
        make.run(ROTATING, make.section(), failing())
