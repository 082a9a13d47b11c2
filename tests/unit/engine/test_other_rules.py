"""The vote's and the percentile's columns against the formulas of their papers, written with scipy alone."""

import math

import numpy as np
import pytest
from scipy.stats import beta, binom, norm

from smoothcert.encoders import KnownEncoder
from smoothcert.engine import Engine, RowMaker, encode_texts
from smoothcert.job import ZeroShotSection

LABELS = tuple("abcde")
ANGLES = dict(zip(LABELS, (0.4, 1.4, 2.4, 3.4, 5.0), strict=True)) | {
    f"caption {i}": 0.35 * i for i in range(12)
}
ENCODER = KnownEncoder.staircase((-0.4, 0.0, 0.3), (0.2, 0.3, 0.6, 1.6), text_angles=ANGLES)
TARGETS = (
    {"certificate": "vote", "radius": 0.2},
    {"certificate": "retrieval_vote", "radius": 0.1},
)


def measured(make, count=16, k=2, **changes):
    texts = encode_texts(
        ENCODER,
        zero_shot=ZeroShotSection(labels=LABELS, prompts=("{label}",)),
        pool=tuple(f"caption {i}" for i in range(12)),
        retrieval_k=k,
    )
    shared = {"sigma": 0.5, "alpha": 0.02, "max_draws": 200, "pilot_draws": 31, "cosines": (0.3, 0.8)}
    certify = make.section(**(shared | changes))
    feed = make.pairs(make.pixels(count), [f"caption {i % 3}" for i in range(count)])
    outcomes = make.run(ENCODER, certify, feed, texts, slots=8)
    layout = Engine(ENCODER, certify, texts).layout
    return outcomes, RowMaker(ENCODER, certify, texts, layout).rows("u7", outcomes), layout, certify


def cohen(votes, alpha, sigma):
    """CERTIFY of Cohen et al. 2019 on the counts of the fresh draws; NaN for ABSTAIN."""
    k, n = int(votes.sum()), len(votes)
    p = float(beta.ppf(alpha, k, n - k + 1)) if k else 0.0
    return p, sigma * float(norm.ppf(p)) if p > 0.5 else math.nan


def rank_of(draws, share, alpha):
    """The largest k with P(Binomial(draws, share) < k) <= alpha."""
    return int(np.sum(binom.cdf(np.arange(draws), draws, share) <= alpha))


def same(stored, expected, **near):
    return math.isnan(expected) if stored is None else stored == pytest.approx(expected, **near)


def test_votes_are_certified_as_by_cohen(make):
    outcomes, rows, layout, certify = measured(make)
    radii = []
    for m, row in zip(outcomes, rows, strict=True):
        for name, share, lcb, radius in (
            ("class_vote", row.vote_share, row.vote_share_lcb, row.vote_radius),
            (
                "retrieval_vote",
                row.retrieval_vote_share,
                row.retrieval_vote_share_lcb,
                row.retrieval_vote_radius,
            ),
        ):
            votes = m.scores[layout.position(name)]
            assert set(votes) <= {0.0, 1.0}
            p, wanted = cohen(votes, certify.alpha, certify.sigma)
            assert share == pytest.approx(votes.mean()) and lcb == pytest.approx(p, rel=1e-9)
            assert same(radius, wanted, rel=1e-9) and lcb <= p
            radii.append(radius)
    assert None in radii and any(radius is not None for radius in radii)


@pytest.mark.parametrize("q", [0.3, 0.5])
def test_percentiles_are_the_order_statistics_that_binomials_allow(make, q):
    outcomes, rows, layout, certify = measured(make, percentile=q, radii=(0.0625, 0.1, 0.5, 3.0))
    seen = set()
    for m, row in zip(outcomes, rows, strict=True):
        for name in ("clean", "pilot", "caption", "class"):
            scores = np.sort(2 * m.scores[layout.position("class_margin" if name == "class" else name)] - 1)
            bounds = []
            for radius in certify.radii:
                # counted up to the next eighth of sigma
                rho = math.ceil(radius / certify.sigma * 8 - 1e-9) / 8
                share = norm.cdf(norm.ppf(q) - rho)
                rank = rank_of(m.draws, share, certify.alpha)
                bounds.append(scores[rank - 1] if rank and rho <= 3 else math.nan)
            stored = getattr(row, f"{name}_percentile")
            for value, bound in zip(stored, bounds, strict=True):
                if name in ("clean", "pilot") and bound < 0:
                    bound = math.nan
                assert same(value, bound, abs=1e-9)
                seen.add(value is None)
            if name in ("clean", "pilot"):
                for cosine, radius in zip(
                    certify.cosines, getattr(row, f"{name}_percentile_radius"), strict=True
                ):
                    ranks = [
                        rank_of(m.draws, norm.cdf(norm.ppf(q) - j / 8), certify.alpha) for j in range(25)
                    ]
                    kept = [j / 8 for j, r in enumerate(ranks) if r and scores[r - 1] - 1e-12 >= cosine]
                    assert same(radius, max(kept) * certify.sigma if kept else math.nan, rel=1e-9)
    assert seen == {True, False}


def test_no_percentile_no_columns(make):
    _, rows, *_ = measured(make, count=2, percentile=None)
    for row in rows:
        assert row.clean_percentile is row.class_percentile is row.clean_quantile_lcb is None
        assert row.vote_share is not None


def test_where_targets_stop_early_nothing_is_taken_from_a_bound_of_a_fixed_number(make):
    fixed = measured(make, max_draws=200)[1]
    outcomes, rows, layout, certify = measured(make, max_draws=200, targets=TARGETS)
    decided = 0
    for m, row in zip(outcomes, rows, strict=True):
        p, _ = cohen(m.scores[layout.position("class_vote")], certify.alpha, certify.sigma)
        assert row.vote_share_lcb <= p + 1e-9
        share = norm.cdf(norm.ppf(0.5) - 0.2)
        rank = rank_of(m.draws, share, certify.alpha)
        ordered = np.sort(m.scores[1])
        if rank and row.clean_quantile_lcb[4] > -1:
            assert row.clean_quantile_lcb[4] <= 2 * ordered[rank - 1] - 1 + 1e-9
        for decision, log_e in zip(row.target_decision, row.log_e_value, strict=True):
            assert (decision == "certified") == (log_e >= -math.log(certify.alpha))
        if row.target_decision[0] == "certified":
            # what the whole test proves is a share above Phi(r / sigma)
            votes = m.scores[layout.position("class_vote")]
            assert votes.mean() > norm.cdf(0.2 / certify.sigma)
        decided += "budget" not in row.target_decision
    assert decided and min(m.draws for m in outcomes) < 200
    assert {row.pair_id for row in fixed} == {row.pair_id for row in rows}


def test_the_threshold_of_a_vote_is_the_share_that_its_radius_needs(make):
    outcomes, _, layout, _ = measured(make, count=2, targets=TARGETS)
    for m in outcomes:
        for item, name, radius in zip(
            layout.targets, ("class_vote", "retrieval_vote"), (0.2, 0.1), strict=True
        ):
            (test,) = item.must
            behind = layout.others.index(name)
            assert layout.test_direction[test] == layout.directions + behind
            needed = norm.cdf(radius / 0.5)
            assert needed <= m.question.thresholds[test] <= needed + 1e-9
