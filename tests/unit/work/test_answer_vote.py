"""Votes on answers: against the exact bound, at every way of cutting draws into batches, and their failure rate."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, norm

from smoothcert.certificates import score_bound, shifted_percentile
from smoothcert.job.answer import VoteSection
from smoothcert.work.answer.vote import Vote, VoteResult

ALPHA, SIGMA = 0.05, 0.25


def run(
    section: VoteSection, pilot: list[str], fresh: list[str], *, sizes: int = 7, **settings
) -> VoteResult:
    references = settings.pop("references", ())
    vote = Vote(section, references, sigma=SIGMA, alpha=ALPHA, alpha_futility=0.1, **settings)
    vote.choose(pilot)
    place = 0
    while not vote.closed:
        vote.add(fresh[place : place + min(sizes, vote.wanted)])
        place += sizes
    return vote.result


def test_the_wording_is_that_of_the_first_pilot_draw_of_the_class() -> None:
    vote = Vote(VoteSection(max_draws=2), (), sigma=0.5, alpha=0.1, alpha_futility=0.1)
    vote.choose(["one", "Two cats.", "2 cats"])
    vote.add(["2 cats", "the two cats"])
    assert (vote.result.answer, vote.result.wording) == ("2 cats", "Two cats.")


def test_the_bound_without_a_radius_is_the_exact_one() -> None:
    fresh = ["A cat."] * 27 + ["dog"] * 3
    result = run(VoteSection(max_draws=30), ["cat", "dog", "the cat"], fresh)
    share = beta.ppf(ALPHA, 27, 4)
    assert (result.answer, result.draws, result.votes, result.method) == ("cat", 30, 27, "clopper_pearson")
    assert result.share_lcb == pytest.approx(share, rel=1e-9)
    assert result.radius == pytest.approx(SIGMA * norm.ppf(share), rel=1e-6) and result.decision is None


def test_a_class_that_wins_the_pilot_alone_is_not_certified() -> None:
    result = run(VoteSection(max_draws=20), ["cat"], ["dog"] * 20)
    assert (result.answer, result.votes, result.radius) == ("cat", 0, None)


def test_where_nobody_votes_nothing_is_claimed() -> None:
    assert run(VoteSection(), ["", "the"], []) == VoteResult(
        None, 0, None, None, None, None, "clopper_pearson"
    )
    right = VoteSection(classes="right")
    assert run(right, ["cat"], []).answer is None, "without references there is no right answer"


def test_right_is_a_property_and_no_wording() -> None:
    fresh = [f"a {colour} cat" for colour in ("red", "blue", "black", "old")] * 10
    result = run(VoteSection(classes="right", max_draws=40), fresh[:4], fresh, references=("cat",))
    assert (result.answer, result.votes) == ("right", 40)
    assert run(VoteSection(max_draws=40), fresh[:4], fresh).votes == 10


@pytest.mark.parametrize("share", [0.97, 0.5])
def test_a_vote_with_a_radius_ends_at_the_same_draw_however_draws_come(share: float) -> None:
    rng = np.random.default_rng(1)
    fresh = ["cat" if each < share else "dog" for each in rng.random(200)]
    section = VoteSection(max_draws=200, radius=0.1, score="rouge_l")
    settings = {"references": ("a red cat",), "percentile": 0.5}
    (result,) = {run(section, ["cat"], fresh, sizes=size, **settings) for size in (1, 7, 64, 200)}
    assert result.score_quantiles is not None and result.score == pytest.approx(
        0.5 * fresh[: result.draws].count("cat") / result.draws
    )
    assert result.decision == ("certified" if share > 0.9 else "refuted")
    assert result.draws < 200 and result.method == "betting"
    assert (result.radius is not None and result.radius >= 0.1) == (result.decision == "certified")


def test_what_the_budget_leaves_open_keeps_its_bound() -> None:
    fresh = ["cat", "cat", "dog", "cat"] * 3
    result = run(VoteSection(max_draws=12, radius=0.1), ["cat"], fresh)
    assert (result.decision, result.draws, result.votes) == ("budget", 12, 9)


@pytest.mark.slow
@pytest.mark.parametrize("radius", [None, 0.1])
def test_bounds_fail_as_seldom_as_they_promise(radius: float | None) -> None:
    """Of 400 votes with a known share a bound is above it at most 5% of the time; more than 42 failures in 400 has
    probability below 1e-5."""
    rng = np.random.default_rng(2)
    section = VoteSection(max_draws=60, radius=radius)
    failures = 0
    for _ in range(400):
        share = float(rng.uniform(0.55, 0.95))
        fresh = ["cat" if each < share else "dog" for each in rng.random(60)]
        result = run(section, ["cat"], fresh, sizes=60)
        failures += result.share_lcb is not None and result.share_lcb > share
    assert failures <= 42


def test_the_score_is_the_mean_of_the_metric_over_the_counted_draws() -> None:
    from smoothcert.statistics import lower_bound

    fresh = ["a red cat", "a red dog", "cat", "the bird"] * 6
    section = VoteSection(max_draws=22, score="rouge_l")
    result = run(section, ["cat"], fresh, references=("a red cat",))
    by_hand = [{"a red cat": 1.0, "a red dog": 2 / 3, "cat": 1 / 2, "the bird": 0.0}[text] for text in fresh]
    assert result.score == pytest.approx(np.mean(by_hand[:22]))
    assert result.score_lcb == pytest.approx(lower_bound(by_hand[:22], ALPHA, "betting"))
    assert run(section, ["cat"], fresh).score is None, "without references there is no score"


@pytest.mark.slow
def test_the_certified_score_under_attack_fails_as_rarely_as_it_says() -> None:
    """A model that is right in a half-space: attacked by r its mean is Phi(q - r/sigma), which no bound may exceed.

    1,000 questions, each closed by its own radius, so at a moment of its own: the bounds of more than 83 exceed it with
    probability below 1e-5 where each does with 0.05 (binomial).
    """
    rng, share, radius = np.random.default_rng(3), 0.9, 0.1
    attacked = norm.cdf(norm.ppf(share) - radius / SIGMA)
    section = VoteSection(max_draws=60, radius=0.2, score="exact_match")
    too_high = 0
    for _ in range(1000):
        fresh = ["cat" if each < share else "dog" for each in rng.random(60)]
        result = run(section, ["cat"], fresh, sizes=16, references=("cat",))
        assert result.score_lcb is not None
        bound = float(score_bound(result.score_lcb, radius, SIGMA))
        too_high += bound > attacked
    assert too_high <= 83


def test_the_bound_of_a_score_is_that_of_its_worst_case() -> None:
    """T1 on [0,1]: a half-space attains it, and nothing is claimed where it is not above 0."""
    p, r = np.array([0.999, 0.9, 0.5, 0.2]), np.array([0.1, 0.3, 0.5, 0.2])
    np.testing.assert_allclose(score_bound(p, r, SIGMA), norm.cdf(norm.ppf(p) - r / SIGMA), atol=1e-9)
    assert (score_bound(p, r, SIGMA) <= norm.cdf(norm.ppf(p) - r / SIGMA)).all()
    assert np.isnan(score_bound(0.0, 0.1, SIGMA)) and score_bound(1.0, 5.0, SIGMA) <= 1.0
    with pytest.raises(ValueError, match="score"):
        score_bound(1.2, 0.1, SIGMA)


@pytest.mark.slow
@pytest.mark.parametrize(("percentile", "radius"), [(0.5, None), (0.3, None), (0.5, 0.05)])
def test_the_certified_percentile_fails_as_rarely_as_it_says(percentile: float, radius: float | None) -> None:
    """Answers get worse in two steps along one direction of the noise z; pushed back by r / sigma, the percentile of
    their score is the score where z is Phi^-1(percentile) - r / sigma.

    Of 400 questions, whose steps lie about that place, the bounds of more than 42 exceed it with probability below 1e-5
    where each does with 0.05 (binomial).
    """
    rng, attack = np.random.default_rng(4), 0.1
    place = norm.ppf(percentile) - attack / SIGMA
    texts = {0: "the bird", 1: "a red dog", 2: "a red cat"}
    scores = {0: 0.0, 1: 2 / 3, 2: 1.0}
    truths, too_high, silent, draws = set(), 0, 0, 60 if radius is None else 120
    for _ in range(400):
        steps = place + rng.uniform(-0.6, 0.2) + np.array([0.0, 0.4])
        fresh = [texts[int((each > steps).sum())] for each in rng.standard_normal(draws)]
        section = VoteSection(max_draws=draws, radius=radius, score="rouge_l")
        result = run(
            section, ["a red cat"], fresh, sizes=draws, references=("a red cat",), percentile=percentile
        )
        assert result.score_quantiles is not None and len(result.score_quantiles) == 25
        truth = scores[int((place > steps).sum())]
        bound = float(shifted_percentile(np.array(result.score_quantiles), attack, SIGMA))
        truths.add(truth)
        too_high += bound > truth + 1e-9
        silent += not bound > 0
    assert truths == {0.0, 2 / 3, 1.0} and too_high <= 42 and silent < 400
