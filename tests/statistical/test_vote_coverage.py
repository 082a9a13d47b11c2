"""The vote and the percentile rule miss no more often than they promise, under the worst shift (T9).

Scores are functions of the noise with known quantiles under every shift; those that grow with the noise are the worst
case, in which the theorem is attained. Misses are counted in independent repetitions with a fixed seed, and a
check rejects where a binomial variable at the promised rate would reach the count with probability below
``FALSE_FAILURE / CHECKS``: the file fails on sound code with probability at most 1e-6 over the choice of seeds.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from smoothcert.certificates import vote_radius
from smoothcert.statistics import lower_bound, percentile_bound, quantile_rank

FALSE_FAILURE, CHECKS = 1e-6, 100
ALPHA, REPETITIONS, DRAWS = 0.05, 4000, 200


def too_often(misses: int, rate: float = ALPHA) -> bool:
    return float(binom.sf(misses - 1, REPETITIONS, rate)) < FALSE_FAILURE / CHECKS


# score of the noise z, and its q-quantile under a shift: the score falls with z, so a shift by +rho is the worst
SCORES = {
    "continuous": lambda z: -z,
    "with ties": lambda z: -np.round(z),
    "few values": lambda z: np.where(z > 1.0, -1.0, np.where(z > -0.5, 0.0, 1.0)),
}


def truth(name: str, q: float, rho: float) -> float:
    """inf{y: P(score <= y) >= q} with z ~ N(rho, 1)."""
    if name == "continuous":
        return float(-(rho + ndtri(1 - q)))
    values = np.arange(-15.0, 16.0)
    if name == "with ties":
        edges = -values - 0.5
    else:
        edges = np.select([values < -1, values < 0, values < 1], [50.0, 1.0, -0.5], -50.0)
    return float(values[np.argmax(1 - ndtr(edges - rho) >= q)])


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(2026).normal(size=(REPETITIONS, DRAWS))


@pytest.mark.parametrize("q", [0.25, 0.5])
@pytest.mark.parametrize("name", SCORES)
def test_percentile_misses(noise: np.ndarray, name: str, q: float) -> None:
    scores = SCORES[name](noise)
    for rho in (0.0, 0.6, 1.1):
        bound = percentile_bound(scores, rho, 1.0, ALPHA, percentile=q)[:, 0]
        misses = int(np.sum(bound > truth(name, q, rho)))
        assert not too_often(misses)
        if name == "continuous" and rho < 1:
            assert (
                misses > 0.4 * ALPHA * REPETITIONS
            )  # and it is no weaker than the discreteness of ranks makes it


@pytest.mark.parametrize("q", [0.25, 0.5])
def test_percentile_misses_at_any_time(noise: np.ndarray, q: float) -> None:
    """A hostile observer looks after every draw from the fifth on, and stops when the bound is false."""
    scores = SCORES["continuous"](noise)
    for rho in (0.0, 0.6):
        missed = fixed = np.zeros(REPETITIONS, dtype=bool)
        at = truth("continuous", q, rho)
        share = float(ndtr(ndtri(q) - rho))
        below = np.cumsum(scores <= at, axis=1)
        for n in range(5, DRAWS + 1):
            # the k-th smallest exceeds the truth if fewer than k are at most the truth
            missed = missed | (below[:, n - 1] < int(quantile_rank(n, share, ALPHA, anytime=True)))
            fixed = fixed | (below[:, n - 1] < int(quantile_rank(n, share, ALPHA)))
        assert not too_often(int(missed.sum()))
        assert too_often(int(fixed.sum()))  # peeking at a fixed-n bound is caught


@pytest.mark.parametrize("method", ["clopper_pearson", "betting"])
def test_vote_misses(noise: np.ndarray, method: str) -> None:
    """Votes of a half-space: its radius is known exactly, and the certified one exceeds it at most at rate alpha."""
    for radius in (0.5, 1.2):
        votes = (noise < radius).astype(float)  # y has the share Phi(radius)
        certified = vote_radius(lower_bound(votes, ALPHA, method), 1.0)
        assert not too_often(int(np.sum(certified > radius)))
        assert np.nanmedian(certified) > 0.35 * radius
