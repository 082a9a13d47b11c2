"""Margins and votes of single draws, against the same thing draw by draw."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from smoothcert.certificates import vote_radius
from smoothcert.encoders import Encoder, KnownEncoder
from smoothcert.engine import Engine, RowMaker, Texts, encode_texts
from smoothcert.engine.draw_scores import DrawScores
from smoothcert.engine.layout import CAPTION, plan_layout
from smoothcert.engine.question import Questioner
from smoothcert.job import ZeroShotSection
from smoothcert.statistics import lower_bound

RNG = np.random.default_rng(11)
DIM, CLASSES, POOL, K = 7, 6, 9, 2


def unit(*shape):
    vectors = RNG.standard_normal(shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def asked(make, own_captions=("caption 4",), rivals=8):
    texts = Texts(
        tuple("abcdef"),
        unit(CLASSES, DIM),
        tuple(f"caption {i}" for i in range(POOL)),
        unit(POOL, DIM),
        retrieval_k=K,
        captions=True,
    )
    certify = make.section(rivals=rivals)
    layout = plan_layout(certify, classes=CLASSES, pool=POOL, captions=True, retrieval_k=K)
    pilot = unit(DIM) + 0.8 * unit(31, DIM)
    pilot /= np.linalg.norm(pilot, axis=1, keepdims=True)
    question = Questioner(layout, texts, certify.sigma).ask(
        pilot, pilot[0], texts.pool_features[4], own_captions
    )
    return texts, layout, question, pilot


def scored(texts, layout, question, features):
    """Of a pair in slot 1 of three, after another one was there."""
    scores = DrawScores(layout, texts, 3, torch.device("cpu"))
    scores.start(1, question)
    drawn = torch.from_numpy(features)[None]
    products = drawn @ torch.from_numpy(question.directions.T.copy())
    return dict(zip(layout.others, scores.of([1], drawn, products)[0].T.numpy(), strict=True))


def test_the_class_is_the_one_that_most_pilot_draws_vote_for(make):
    for _ in range(20):
        texts, _, question, pilot = asked(make)
        winners = [max(range(CLASSES), key=lambda c: float(u @ texts.class_features[c])) for u in pilot]
        counts = [winners.count(c) for c in range(CLASSES)]
        assert counts[question.voted] == max(counts)
        first = [c for c in range(CLASSES) if counts[c] == max(counts)]
        mean = pilot.mean(axis=0)
        assert question.voted == max(first, key=lambda c: float(mean @ texts.class_features[c]))


def test_scores_are_those_of_each_draw_by_itself(make):
    texts, layout, question, _ = asked(make)
    assert layout.others == ("class_margin", "class_vote", "retrieval_vote", "retrieval_rest")
    draws = unit(200, DIM)
    found = scored(texts, layout, question, draws)
    own = texts.class_features[question.voted]
    rivals = [texts.class_features[c] for c in range(CLASSES) if c != question.voted]
    others = [texts.pool_features[i] for i in range(POOL) if i != 4]
    for i, u in enumerate(draws):
        margin = min(float(u @ (own - t)) / float(np.linalg.norm(own - t)) for t in rivals)
        assert found["class_margin"][i] == pytest.approx((1 + margin) / 2, abs=1e-12)
        assert found["class_vote"][i] == (margin > 0)
        ahead = sum(float(u @ t) >= float(u @ texts.pool_features[4]) for t in others)
        assert found["retrieval_vote"][i] == (ahead < K)
        assert found["retrieval_rest"][i] == 1.0  # all other captions are measured
    for name in ("class_vote", "retrieval_vote"):
        assert 0 < found[name].mean() < 1, name


def test_of_rivals_without_a_direction_the_smallest_margin_is_measured(make):
    for _ in range(5):
        texts, layout, question, pilot = asked(make, own_captions=("caption 4", "caption 6"), rivals=2)
        assert layout.others[3:] == ("class_rest", "retrieval_rest")
        draws = unit(60, DIM)
        found = scored(texts, layout, question, draws)
        for name, features, own, left_out, rivals in (
            ("class_rest", texts.class_features, question.predicted, {question.predicted}, question.classes),
            ("retrieval_rest", texts.pool_features, 4, {4, 6}, question.pool),
        ):
            assert len(rivals.measured) == 2
            rest = set(range(len(features))) - left_out - set(rivals.measured)
            gaps = np.array([features[own] - features[c] for c in sorted(rest)])
            gaps /= np.linalg.norm(gaps, axis=1, keepdims=True)
            margins = (draws @ gaps.T).min(axis=1)
            assert found[name] == pytest.approx((1 + margins) / 2, abs=2e-9)
            # -w is never longer than a unit vector: what is above 0 is rounded down
            assert np.all(2 * found[name][margins > 0] - 1 <= margins[margins > 0] + 1e-15)
            before = (1 + (pilot @ gaps.T).min(axis=1)) / 2
            assert rivals.rest_pilot == pytest.approx(before, abs=1e-6)


def test_equal_texts_among_the_rest_have_no_margin(make):
    texts, layout, question, _ = asked(make, rivals=1)
    same = np.tile(texts.class_features[question.predicted], (CLASSES, 1))
    texts = Texts(texts.labels, same, texts.pool_captions, texts.pool_features, retrieval_k=K, captions=True)
    question = Questioner(layout, texts, make.section(rivals=1)).ask(
        unit(31, DIM), unit(DIM), texts.pool_features[4], ("caption 4",)
    )
    found = scored(texts, layout, question, unit(20, DIM))
    assert np.all(found["class_rest"] == 0.5) and np.all(found["class_margin"] == 0.5)
    assert not found["class_vote"].any()


def test_ties_numbers_that_are_none_and_pairs_without_a_question_are_no_votes(make):
    texts, layout, question, _ = asked(make)
    between = texts.class_features[question.voted] + texts.class_features[(question.voted + 1) % CLASSES]
    # exactly in the middle of two axes
    axes = np.eye(DIM)[:CLASSES]
    tied = Texts(texts.labels, axes, captions=True)
    flat = plan_layout(make.section(), classes=CLASSES, pool=0, captions=True, retrieval_k=1)
    asker = Questioner(flat, tied, 0.5)
    pilot = np.tile(axes[2], (15, 1))
    middle = (axes[2] + axes[3]) / math.sqrt(2)
    found = scored(tied, flat, asker.ask(pilot, pilot[0], axes[0], ()), np.stack([middle, axes[2]]))
    assert found["class_vote"].tolist() == [0.0, 1.0] and found["class_margin"][0] == 0.5
    draws = np.full((1, DIM), np.nan)
    found = scored(texts, layout, question, draws)
    assert found["class_vote"] == found["retrieval_vote"] == 0 and np.isnan(found["class_margin"])
    without = Questioner(layout, texts, 0.5).ask(unit(15, DIM), unit(DIM), None, ())
    found = scored(texts, layout, without, between[None] / np.linalg.norm(between))
    assert found["retrieval_vote"] == 0


def test_what_one_pair_was_asked_is_gone_when_the_next_has_its_slot(make):
    texts, layout, first, _ = asked(make, own_captions=("caption 0", "caption 1", "caption 4"))
    pilot = unit(15, DIM)
    second = Questioner(layout, texts, 0.5).ask(pilot, pilot[0], texts.pool_features[5], ("caption 5",))
    draws = torch.from_numpy(unit(1, 100, DIM))
    used, fresh = (DrawScores(layout, texts, 1, torch.device("cpu")) for _ in range(2))
    used.start(0, first)
    products = draws @ torch.from_numpy(second.directions.T.copy())
    for scores in (used, fresh):
        scores.start(0, second)
    np.testing.assert_array_equal(used.of([0], draws, products), fresh.of([0], draws, products))
    assert products.shape[2] > CAPTION


class Sign(Encoder):
    """Features of one dimension: the sign of the first pixel's distance from the middle."""

    def __init__(self) -> None:
        super().__init__(name="sign", digest="s" * 64, feature_dim=1, input_size=(4, 4))

    def prepare(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image, dtype=np.uint8).transpose(2, 0, 1)

    def _image_features(self, batch: torch.Tensor) -> torch.Tensor:
        return torch.where(batch[:, 0, 0, 0] > 0.5, 1.0, -1.0)[:, None]

    def _text_features(self, texts) -> torch.Tensor:
        return torch.tensor([[1.0 if text == "bright" else -1.0] for text in texts])


def test_features_of_one_dimension(make):
    """A half-space: P(vote) = Phi(distance / sigma), so the vote's radius is the distance, but for the draws."""
    encoder = Sign()
    texts = encode_texts(
        encoder, zero_shot=ZeroShotSection(labels=("bright", "dark"), prompts=("{label}",)), captions=False
    )
    certify = make.section(max_draws=400, pilot_draws=31, alpha=0.001)
    images = np.full((4, 3, 4, 4), 128, dtype=np.uint8)
    images[:, 0, 0, 0] = (0, 90, 190, 255)
    outcomes = make.run(encoder, certify, make.pairs(images), texts)
    rows = RowMaker(encoder, certify, texts, Engine(encoder, certify, texts).layout).rows("u0", outcomes)
    for row in sorted(rows, key=lambda row: row.pair_id):
        pixel = float(images[int(row.pair_id.removeprefix("data#")), 0, 0, 0]) / 255
        assert row.vote_label == ("bright" if pixel > 0.5 else "dark")
        # false with probability 0.001 for each of the four rows
        assert row.vote_radius is None or row.vote_radius <= abs(pixel - 0.5)
        assert row.vote_share == pytest.approx(
            0.5 * (1 + math.erf(abs(pixel - 0.5) / 0.5 / 2**0.5)), abs=0.12
        )
    assert sum(row.vote_radius is not None for row in rows) >= 2


@pytest.mark.parametrize("targets", [(), ({"certificate": "vote", "radius": 0.5},)])
def test_a_constant_feature_votes_as_one(make, targets):
    """All draws equal: the largest radius that so many draws can show, and a percentile at the very score."""
    encoder = KnownEncoder.staircase((50.0,), (0.3, 1.0), text_angles={"a": 0.0, "b": 2.0, "a caption": 0.3})
    texts = encode_texts(encoder, zero_shot=ZeroShotSection(labels=("a", "b"), prompts=("{label}",)))
    certify = make.section(max_draws=200, alpha=0.001, targets=targets)
    outcomes = make.run(encoder, certify, make.pairs(make.pixels(2)), texts)
    for row in RowMaker(encoder, certify, texts, Engine(encoder, certify, texts).layout).rows("u0", outcomes):
        assert (row.vote_label, row.vote_share) == ("a", 1.0)
        method = "betting" if targets else "clopper_pearson"
        share = float(lower_bound(np.ones(row.draws), 0.001, method))
        assert row.vote_share_lcb == pytest.approx(share, abs=1e-6)
        assert row.vote_radius == pytest.approx(float(vote_radius(share, 0.5)), abs=1e-4)
        assert row.clean_percentile[0] == pytest.approx(1.0) and row.caption_percentile[0] == pytest.approx(
            1.0
        )
        margin = (math.cos(0.3) - math.cos(1.7)) / math.sqrt(2 - 2 * math.cos(2.0))
        assert row.class_percentile[0] == pytest.approx(margin, abs=1e-6)
        if targets:
            assert row.target_decision == ("certified",) and row.draws < 200


def test_where_every_draw_is_a_tie_all_abstain_and_nothing_is_certified(make):
    """The feature always lies exactly between two classes: no draw votes, and no rule has a class to certify."""
    encoder = KnownEncoder.staircase((50.0,), (0.0, 1.0), text_angles={"a": 0.7, "b": -0.7, "a caption": 0.3})
    texts = encode_texts(encoder, zero_shot=ZeroShotSection(labels=("a", "b"), prompts=("{label}",)))
    for targets in ((), ({"certificate": "vote", "radius": 0.2}, {"certificate": "class", "radius": 0.2})):
        certify = make.section(max_draws=100, targets=targets)
        outcomes = make.run(encoder, certify, make.pairs(make.pixels(2)), texts)
        layout = Engine(encoder, certify, texts).layout
        for row in RowMaker(encoder, certify, texts, layout).rows("u0", outcomes):
            assert (row.status, row.vote_share, row.vote_share_lcb) == ("ok", 0.0, 0.0)
            assert row.vote_radius is None and row.certified_radius is None
            assert set(row.class_distribution) == {None}
            assert row.class_percentile[0] <= 0.0
            assert "certified" not in row.target_decision
