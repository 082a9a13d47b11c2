"""Rows: each certificate from the right mean at the right level, and NULL where nothing is certified."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.certificates import (
    angular_bound,
    angular_radius,
    clean_reference_bound,
    dual_bound,
    fcsb,
    fcsb_radius,
    large_radius_bound,
    margin_radius,
    similarity_bound,
)
from smoothcert.datasets import Pair
from smoothcert.encoders import KnownEncoder
from smoothcert.engine import Engine, Failure, RowMaker, encode_texts
from smoothcert.engine.rival_bounds import margin_from_norm
from smoothcert.errors import DecodeError, EncoderError, WorkerHungError
from smoothcert.job import ZeroShotSection
from smoothcert.statistics import choose_bets, lower_bound

LABELS = tuple("abcdefg")
ANGLES = dict(zip(LABELS, (0.4, 1.4, 2.4, 3.2, 4.0, 5.0, 6.0), strict=True)) | {
    f"caption {i}": 0.35 * i for i in range(12)
}
# the rivals of 'a' are 'g' and 'b': the features of most pairs lie near the angle 0.4
ENCODER = KnownEncoder.staircase((-0.4, 0.0, 0.3), (0.2, 0.3, 0.6, 1.6), text_angles=ANGLES)
SHARED = {
    "sigma": 0.5,
    "alpha": 0.02,
    "max_draws": 120,
    "pilot_draws": 31,
    "cosines": (0.3, 0.8),
    "rivals": 3,
}

NEAR = 1e-5
"""The betting bound is solved up to 1e-6, so what follows from it is compared a little more coarsely."""


def lcb(scores, alpha, method="betting"):
    return float(lower_bound(np.asarray(scores)[None], alpha, method)[0])


def mean_lcb(m, position, alpha, certify):
    """The bound of one direction's mean, by bets that the pilot draws along it choose."""
    bets = None
    if certify.method == "betting":
        pilot = m.question.pilot[[position]]
        bets = choose_bets(pilot, alpha, certify.max_draws, fixed=not certify.targets)
    return float(lower_bound(m.scores[[position]], alpha, certify.method, bets=bets)[0])


def radius(margin, norm, alignment, sigma):
    return float(margin_radius(None if margin is None else [margin], [norm], [alignment], sigma)[0])


def projected(score):
    return max(-1.0, np.nextafter(2 * score - 1, -2))


def outcomes_and_rows(make, k=1, count=24, **changes):
    texts = encode_texts(
        ENCODER,
        zero_shot=ZeroShotSection(labels=LABELS, prompts=("{label}",)),
        pool=tuple(f"caption {i}" for i in range(12)),
        retrieval_k=k,
    )
    certify = make.section(**(SHARED | changes))
    feed = make.pairs(make.pixels(count), [f"caption {i % 3}" for i in range(count)])
    outcomes = make.run(ENCODER, certify, feed, texts, slots=8)
    layout = Engine(ENCODER, certify, texts).layout
    maker = RowMaker(ENCODER, certify, texts, layout)
    return outcomes, maker.rows("u7", outcomes), texts, layout, certify


def equal(number, expected):
    """NULL stands for NaN, and for nothing else."""
    if number is None:
        return math.isnan(expected)
    return number == pytest.approx(float(expected), abs=NEAR)


@pytest.mark.parametrize("method", ["betting", "empirical_bernstein", "hoeffding"])
def test_every_certificate_uses_the_mean_and_the_level_that_the_module_documents(make, method):
    outcomes, rows, texts, layout, certify = outcomes_and_rows(make, method=method)
    alpha, sigma, radii = certify.alpha, certify.sigma, certify.radii
    pilot, clean, caption, first = 0, 1, 2, layout.first_class_rival
    bound_by = set()
    for m, row in zip(outcomes, rows, strict=True):
        q, scores = m.question, m.scores
        norm = projected(mean_lcb(m, pilot, alpha, certify))
        norm_half = projected(mean_lcb(m, pilot, alpha / 2, certify))
        score = mean_lcb(m, clean, alpha, certify)
        clean_half = projected(mean_lcb(m, clean, alpha / 2, certify))
        assert row.smooth_norm == pytest.approx(2 * scores[pilot].mean() - 1)
        assert row.smooth_norm_lcb == pytest.approx(norm, abs=NEAR)
        assert row.robustness_score == pytest.approx(scores[clean].mean())
        assert row.robustness_score_lcb == pytest.approx(score, abs=NEAR)
        levels = np.linspace(0, 0.875, 8)
        share = [
            lcb((scores[clean] >= (1 + level) / 2).astype(float), alpha / 8, "clopper_pearson")
            for level in levels
        ]
        caption_half = projected(mean_lcb(m, caption, alpha / 2, certify))
        a = q.caption_alignment
        gram = np.array([[1, -1, -a], [-1, 1, a], [-a, a, 1.0]])
        assert row.exceedance_lcb == pytest.approx(share, abs=1e-12)
        assert row.caption_alignment == q.caption_alignment
        for i, r in enumerate(radii):
            assert equal(row.fcsb[i], fcsb(score, r, sigma))
            assert equal(row.angular[i], angular_bound(norm, r, sigma))
            assert equal(row.clean_reference[i], clean_reference_bound(clean_half, norm_half, r, sigma))
            assert equal(row.large_radius[i], large_radius_bound(share, levels, r, sigma))
            assert equal(row.caption_bound[i], -dual_bound(gram, [caption_half, norm_half], r, sigma))
        for i, tau in enumerate(certify.cosines):
            assert equal(row.fcsb_radius[i], fcsb_radius(score, tau, sigma))
            assert equal(row.angular_radius[i], angular_radius(norm, tau, sigma))
        assert row.caption_similarity_lcb == pytest.approx(
            2 * mean_lcb(m, caption, alpha, certify) - 1, abs=1e-9
        )

        each, margins, halves, sample_margins = [], [], [], []
        for place in range(3):
            direction = scores[first + place]
            margin = projected(mean_lcb(m, first + place, alpha / 2, certify))
            halves.append(margin)
            each.append(radius(margin, norm_half, q.classes.alignment[place], sigma))
            margins.append(2 * mean_lcb(m, first + place, alpha, certify) - 1)
            sample_margins.append(2 * direction.mean() - 1)
        each.append(radius(None, norm_half, q.classes.others_alignment, sigma))
        assert equal(row.certified_radius, math.nan if np.isnan(each).any() else min(each))
        binding = int(np.argmin(np.nan_to_num(each, nan=-1.0)))
        if binding < 3:
            assert row.class_rival == texts.labels[q.classes.measured[binding]] != row.predicted_label
            assert row.class_rival_margin_lcb == pytest.approx(halves[binding], abs=NEAR)
            assert row.class_rival_alignment == q.classes.alignment[binding]
            assert row.class_margin_lcb <= row.class_rival_margin_lcb
        else:
            assert row.class_rival is row.class_rival_margin_lcb is None
            assert row.class_rival_alignment == q.classes.others_alignment
        if row.certified_radius is not None:
            assert row.certified_radius == pytest.approx(
                radius(row.class_rival_margin_lcb, norm_half, row.class_rival_alignment, sigma), rel=1e-4
            )
        bound_by.add(binding)
        assert row.class_margin == pytest.approx(min(sample_margins))
        assert row.class_margin_lcb <= min(margins) + NEAR
        assert (row.predicted_label, row.clean_label) == (
            texts.labels[q.predicted],
            texts.labels[q.clean_class],
        )
    assert any(row.certified_radius is not None for row in rows)
    assert len(bound_by) > 1


@pytest.mark.parametrize("k", [1, 3])
def test_rank_k_takes_the_kth_rival_at_alpha_over_2k(make, k):
    outcomes, rows, _, layout, certify = outcomes_and_rows(make, k=k, rivals=4, max_draws=300)
    level = certify.alpha / (2 * k)
    for m, row in zip(outcomes, rows, strict=True):
        pool = m.question.pool
        norm = projected(mean_lcb(m, 0, level, certify))
        each = [
            radius(
                projected(mean_lcb(m, layout.first_pool_rival + i, level, certify)),
                norm,
                pool.alignment[i],
                certify.sigma,
            )
            for i in range(len(pool.measured))
        ]
        # rivals that were not measured may all be as near as the worst of them
        each += [radius(None, norm, pool.others_alignment, certify.sigma)] * k
        ordered = sorted(-1.0 if math.isnan(r) else r for r in each)
        assert equal(row.retrieval_radius, math.nan if ordered[k - 1] < 0 else ordered[k - 1])
        if row.retrieval_radius is not None:
            margin, alignment = row.retrieval_rival_margin_lcb, row.retrieval_rival_alignment
            found = radius(margin, norm, alignment, certify.sigma)
            assert found == pytest.approx(row.retrieval_radius, rel=1e-4)
            assert (margin is None) == (alignment == pool.others_alignment)
        assert row.retrieval_rank == m.question.rank
    if k == 3:
        assert any(row.retrieval_radius is not None for row in rows)


def test_what_certifies_nothing_is_null_and_no_number_is_out_of_range(make):
    _, rows, *_ = outcomes_and_rows(make, radii=(0.05, 0.5, 3.0), max_draws=10)
    for row in rows:
        for values in (row.fcsb, row.angular, row.clean_reference, row.large_radius):
            assert len(values) == 3
            assert all(v is None or 0 <= v <= 1 for v in values)
        assert (row.fcsb[-1], row.angular[-1], row.clean_reference[-1]) == (None, None, None)
        for field in dataclasses.fields(row):
            value = getattr(row, field.name)
            numbers = value if isinstance(value, tuple) else (value,)
            assert not any(isinstance(v, float) and math.isnan(v) for v in numbers), field.name
    assert any(row.certified_radius is None for row in rows)
    assert any(row.fcsb[0] is not None for row in rows) or any(row.angular[0] is not None for row in rows)


def test_rows_do_not_depend_on_the_batch_they_are_computed_in(make):
    outcomes, rows, texts, layout, certify = outcomes_and_rows(
        make, targets=({"certificate": "fcsb", "radius": 0.05, "cosine": 0.6},)
    )
    assert len({m.draws for m in outcomes}) > 1
    maker = RowMaker(ENCODER, certify, texts, layout)
    for outcome, row in zip(outcomes, rows, strict=True):
        alone = maker.rows("u7", [outcome])[0]
        for field in dataclasses.fields(row):
            one, other = getattr(alone, field.name), getattr(row, field.name)
            if isinstance(one, tuple) and one and isinstance(one[0], (float, type(None))):
                assert [v is None for v in one] == [v is None for v in other]
                assert [v or 0 for v in one] == pytest.approx([v or 0 for v in other], abs=1e-6)
            else:
                assert one == other or one == pytest.approx(other, abs=1e-6), field.name


def test_failures_become_quarantined_rows_in_their_place(make):
    outcomes, _, texts, layout, certify = outcomes_and_rows(make, count=2)
    bad = Pair("data#9", "data", None, ("x", "y"), "b", None)
    hung = Pair("data#8", "data", None, (), None, None)
    mixed = [
        Failure("a", bad, DecodeError("not an image", remedy="send another")),
        outcomes[0],
        Failure("b", hung, WorkerHungError("slept")),
    ]
    first, middle, last = RowMaker(ENCODER, certify, texts, layout).rows("u7", mixed)
    assert (first.status, first.error_stage, first.error_class) == ("quarantined", "decode", "DecodeError")
    assert "not an image" in first.error_message
    assert (first.unit_id, first.pair_id, first.caption, first.captions, first.label) == (
        "u7",
        "data#9",
        "x",
        ("x", "y"),
        "b",
    )
    assert (last.status, last.error_stage, last.caption) == ("quarantined", "worker", None)
    # what a pair came with names an attempt; its row names the unit
    assert {first.unit_id, middle.unit_id, last.unit_id} == {"u7"} and outcomes[0].token == "u0"
    assert middle.status == "ok" and middle.error_class is None
    for row in (first, last):
        assert (
            row.draws == 0
            and row.fcsb is None
            and row.certified_radius is None
            and row.smooth_norm_lcb is None
        )
        assert (row.sigma, row.alpha, row.encoder_digest) == (certify.sigma, certify.alpha, ENCODER.digest)
    assert RowMaker(ENCODER, certify, texts, layout).rows("u7", []) == []


def test_a_job_without_texts_leaves_their_columns_null(make):
    certify = make.section()
    from smoothcert.engine import Texts

    outcomes = make.run(ENCODER, certify, make.pairs(make.pixels(2)))
    layout = Engine(ENCODER, certify, Texts()).layout
    for row in RowMaker(ENCODER, certify, Texts(), layout).rows("u7", outcomes):
        assert row.caption_bound is row.caption_similarity is row.predicted_label is None
        assert row.certified_radius is row.retrieval_radius is row.retrieval_rank is None
        assert row.fcsb is not None


def test_the_columns_that_describe_the_run(make):
    _, rows, *_ = outcomes_and_rows(make, count=2, seed=77)
    for row in rows:
        assert (row.seed, row.device, row.dtype) == (77, "cpu", "float32")
        assert (row.input_height, row.input_width) == (4, 4)
        assert (row.draws, row.pilot_draws, row.stop_reason) == (120, 31, "fixed")
        assert "cpu" in row.noise


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_the_margin_from_the_norm_is_the_smallest_that_is_possible(norm, alignment):
    """Brute force over all m = (c, s) with c >= norm and c^2 + s^2 <= 1, v = (1, 0), w at the alignment."""
    w = np.array([alignment, np.sqrt(max(0.0, 1 - alignment**2))])
    c = np.linspace(norm, 1, 800)
    s = np.sqrt(np.maximum(0.0, 1 - c**2))  # a linear function is smallest on the rim
    smallest = min(np.min(-(c * w[0] + s * w[1])), np.min(-(c * w[0] - s * w[1])))
    found = margin_from_norm(norm, alignment)
    assert found <= smallest
    assert found == pytest.approx(smallest, abs=3e-3)


def test_a_pair_that_owns_the_whole_pool_has_no_rival_to_fear(make):
    pool = ("caption 1", "caption 2")
    texts = encode_texts(ENCODER, pool=pool, retrieval_k=1)
    certify = make.section(**SHARED)
    feed = [("u", dataclasses.replace(pair, captions=pool)) for _, pair in make.pairs(make.pixels(3))]
    outcomes = make.run(ENCODER, certify, feed, texts, slots=8)
    rows = RowMaker(ENCODER, certify, texts, Engine(ENCODER, certify, texts).layout).rows("u7", outcomes)
    assert [(row.status, row.retrieval_rank, row.retrieval_radius) for row in rows] == [
        ("ok", 1, math.inf)
    ] * 3
    assert all(row.retrieval_rival_margin_lcb is row.retrieval_rival_alignment is None for row in rows)


def test_a_norm_that_is_not_shown_to_be_positive_is_null(make):
    _, rows, *_ = outcomes_and_rows(make, sigma=4.0, max_draws=5)
    assert all(row.smooth_norm_lcb is None or row.smooth_norm_lcb > 0 for row in rows)
    assert any(row.smooth_norm_lcb is None and row.smooth_norm is not None for row in rows)


def test_no_certificate_rests_on_more_than_its_row_shows(make):
    """A betting bound at alpha/2 may lie above that at alpha, as it does for draws that rise.

    So what needs two bounds takes the smaller of the two levels. Stakes tuned to a fixed number do not do it.
    """
    shared = {"max_draws": 300, "pilot_draws": 63}
    outcomes, _, texts, _, _ = outcomes_and_rows(make, k=2, **shared)
    target = {"certificate": "angular", "cosine": 0.3, "radius": 0.1}
    certify = make.section(**(SHARED | shared | {"targets": (target,)}))
    layout = Engine(ENCODER, certify, texts).layout
    line = np.linspace(0.3, 1.0, 300)
    rising = [
        dataclasses.replace(m, scores=np.concatenate([np.tile(line, (3, 1)), m.scores[3:]])) for m in outcomes
    ]
    alpha, sigma = certify.alpha, certify.sigma
    levels = [mean_lcb(rising[0], 0, level, certify) for level in (alpha / 4, alpha / 2, alpha)]
    assert levels[0] > levels[1] + 1e-3 > levels[2] + 2e-3
    for row in RowMaker(ENCODER, certify, texts, layout).rows("u7", rising):
        norm, clean = row.smooth_norm_lcb or 0.0, 2 * row.robustness_score_lcb - 1
        for stored, margin, alignment in (
            (row.certified_radius, row.class_rival_margin_lcb, row.class_rival_alignment),
            (row.retrieval_radius, row.retrieval_rival_margin_lcb, row.retrieval_rival_alignment),
        ):
            assert (stored or 0.0) <= np.nan_to_num(radius(margin, norm, alignment, sigma)) * (1 + 1e-4)
        for i, r in enumerate(certify.radii):
            cap = similarity_bound(row.caption_similarity_lcb, norm, row.caption_alignment, r, sigma)
            assert row.caption_bound[i] <= cap + 1e-7
            best = np.nan_to_num(clean_reference_bound(clean, norm, r, sigma))
            assert (row.clean_reference[i] or 0.0) <= best + 1e-9


def test_several_captions_are_one_direction_between_them(make):
    """The columns speak of the direction of the mean of the captions' features, whichever is named first."""
    first, second = "caption 1", "caption 9"
    certify = make.section(**SHARED)
    image = make.pixels(1)
    rows = []
    for captions in ((first, second), (second, first)):
        feed = [("u", dataclasses.replace(pair, captions=captions)) for _, pair in make.pairs(image)]
        texts = encode_texts(ENCODER)
        outcomes = make.run(ENCODER, certify, feed, texts, slots=2)
        [row] = RowMaker(ENCODER, certify, texts, Engine(ENCODER, certify, texts).layout).rows("u7", outcomes)
        rows.append(row)
        between = (ANGLES[first] + ANGLES[second]) / 2
        feature = ENCODER.smoothed_feature(image[0], certify.sigma)
        truth = feature @ [math.cos(between), math.sin(between)]
        # Hoeffding with 120 draws in [-1, 1]: off by more than 0.5 with probability below 2 exp(-7.5)
        assert abs(row.caption_similarity - truth) < 0.5
        assert row.caption_similarity_lcb <= truth + 1e-9
    assert rows[0].caption_similarity == pytest.approx(rows[1].caption_similarity, abs=1e-6)


def test_labels_that_the_encoder_cannot_tell_apart_are_refused():
    twins = KnownEncoder.rotating(text_angles={"a": 1.0, "b": 2.0, "c": 1.0})
    with pytest.raises(EncoderError, match="'a' and 'c' have the same text feature"):
        encode_texts(twins, zero_shot=ZeroShotSection(labels=("a", "b", "c"), prompts=("{label}",)))


def test_other_braces_in_a_prompt_are_text():
    known = KnownEncoder.rotating(text_angles={"a {x}": 1.0, "b {x}": 2.0})
    texts = encode_texts(known, zero_shot=ZeroShotSection(labels=("a", "b"), prompts=("{label} {x}",)))
    assert texts.class_features[0] == pytest.approx([math.cos(1), math.sin(1)], abs=1e-6)
