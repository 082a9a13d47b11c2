"""T4 beside T8: certificates by the distribution are never worse than T4 at its part of alpha; some are T4's own."""

import numpy as np
import pytest

from smoothcert.catalogue.evidence import BESIDE
from smoothcert.certificates import dual_bound, fcsb, margin_radius, rank_radius, straight_law, straight_score
from smoothcert.encoders import KnownEncoder
from smoothcert.engine import Engine, RowMaker, encode_texts
from smoothcert.job import ZeroShotSection
from smoothcert.statistics import choose_bets, lower_bound

LABELS = tuple("abcdefg")
ANGLES = dict(zip(LABELS, (0.4, 1.4, 2.4, 3.2, 4.0, 5.0, 6.0), strict=True)) | {
    f"caption {i}": 0.35 * i for i in range(12)
}
ENCODERS = (
    KnownEncoder.staircase((-0.4, 0.0, 0.3), (0.2, 0.3, 0.6, 1.6), text_angles=ANGLES),
    KnownEncoder.staircase((-0.3, 0.6), (0.1, 0.5, 2.4), text_angles=ANGLES),
)
RANK, NEAR = 2, 1e-5
SETTINGS = {"sigma": 0.5, "alpha": 0.02, "max_draws": 300, "pilot_draws": 15, "rivals": 3}
RADII = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6)


@pytest.fixture(scope="module", params=ENCODERS, ids=("four steps", "three steps"))
def certified(make, request):
    texts = encode_texts(
        request.param,
        zero_shot=ZeroShotSection(labels=LABELS, prompts=("{label}",)),
        pool=tuple(f"caption {i}" for i in range(12)),
        retrieval_k=RANK,
    )
    certify = make.section(**SETTINGS, radii=RADII)
    feed = make.pairs(make.pixels(16), [f"caption {i % 3}" for i in range(16)])
    outcomes = make.run(request.param, certify, feed, texts, slots=8)
    layout = Engine(request.param, certify, texts).layout
    return list(
        zip(outcomes, RowMaker(request.param, certify, texts, layout).rows("u", outcomes), strict=True)
    ), layout


def projection(m, position, share):
    """Lower bound of the mean along a direction, at a share of alpha, and no more than at all of T4's alpha."""
    found = []
    for alpha in (SETTINGS["alpha"] * float(share), SETTINGS["alpha"] * float(share / BESIDE)):
        bets = choose_bets(m.question.pilot[[position]], alpha, SETTINGS["max_draws"], fixed=True)
        found.append(float(2 * lower_bound(m.scores[[position]], alpha, bets=bets)[0] - 1))
    return min(found)


def radius_by_t4(m, rivals, first, k):
    """Of the k-th smallest over all rivals, from bounds at half of T4's part of alpha."""
    share = BESIDE / 2 / k
    norm, sigma = projection(m, 0, share), SETTINGS["sigma"]
    margins = [projection(m, first + i, share) for i in range(len(rivals.measured))]
    each = margin_radius(margins, norm, rivals.alignment, sigma)
    if rivals.others_alignment is not None:
        each = np.append(each, [margin_radius(None, norm, rivals.others_alignment, sigma)] * k)
    return float(np.nan_to_num(rank_radius(each, k), nan=-1.0))


def test_what_t4_certifies_at_its_part_of_alpha_the_distribution_certifies_too(certified):
    rows, layout = certified
    reached = 0
    for m, row in rows:
        for name, rivals, first, k in (
            ("class", m.question.classes, layout.first_class_rival, 1),
            ("retrieval", m.question.pool, layout.first_pool_rival, RANK),
        ):
            r4 = radius_by_t4(m, rivals, first, k)
            for i, r in enumerate(RADII):
                # a radius and a bound come from different searches
                if r <= r4 * (1 - 1e-3):
                    assert getattr(row, f"{name}_distribution")[i] > 0
                    reached += 1
    assert reached > 20


def test_bounds_are_never_below_those_of_t4_at_its_part_of_alpha(certified):
    for m, row in certified[0]:
        clean, caption, norm = (projection(m, position, BESIDE / 2) for position in (1, 2, 0))
        a = m.question.caption_alignment
        gram = np.array([[1, -1, -a], [-1, 1, a], [-a, a, 1.0]])
        for i, r in enumerate(RADII):
            t4 = -float(dual_bound(gram, [caption, norm], r, SETTINGS["sigma"]))
            assert row.caption_distribution[i] >= t4 - NEAR
            t2 = float(fcsb((1 + clean) / 2, r, SETTINGS["sigma"]))
            if t2 > NEAR:
                assert row.clean_distribution[i] >= t2 - NEAR


def test_where_t4_proves_more_a_row_says_by_what(certified):
    """The multipliers in the place of a law are T4's own for the two bounds, and the mean is that of the draws."""
    seen = 0
    for m, row in certified[0]:
        for i, r in enumerate(RADII):
            law = row.caption_scalar[5 * i : 5 * i + 5]
            if law[3] != -1:
                continue
            seen += 1
            bounds = [projection(m, position, BESIDE / 2) for position in (2, 0)]
            a = m.question.caption_alignment
            best = straight_law([bounds[0]], [bounds[1]], [-a], r, SETTINGS["sigma"])
            assert row.caption_scalar_lcb[i] == pytest.approx(straight_score(best, *bounds)[0], abs=NEAR)
            first, second = (0 if each <= -10 else np.exp(each) for each in law[:2])
            mixture = first * m.question.directions[2] + second * m.question.directions[0]
            mean = 2 * m.scores[[2, 0]].mean(axis=1) - 1
            along = mean @ [first, second] / np.linalg.norm(mixture)
            assert law[4] == pytest.approx((1 + along) / 2, abs=1e-6)
            assert row.caption_scalar_lcb[i] <= law[4]
    assert seen > 0
    assert any(row.class_scalar[5 * i + 3] == -1 for _, row in certified[0] for i in range(len(RADII)))
