"""Targets that no pair can reach: against the sequential test itself, fed with perfect draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from smoothcert.certificates import fcsb
from smoothcert.errors import JobError
from smoothcert.job import CertifySection
from smoothcert.statistics import CERTIFIED, SequentialTest, choose_bets
from smoothcert.work.certify.reach import check_reach, perfect_draws


def section(target: dict[str, object], **fields: object) -> CertifySection:
    return CertifySection(**{"sigma": 0.25, "alpha": 0.001, "max_draws": 300, "targets": (target,), **fields})


def draws_of_the_test(mean: float, alpha: float, most: int = 3000) -> int:
    """When the test certifies that a mean is at least so much, all draws being 1; the sooner of two ways to bet."""
    found = []
    for bets in (None, choose_bets(np.ones((1, 63)), alpha, most)):
        test = SequentialTest(np.array([[mean]]), alpha)
        test.reset([0], np.array([[mean]]), bets)
        for n in range(1, most + 1):
            test.update(np.ones((1, 1, 1)), slots=[0], counts=[1])
            if test.decisions[0, 0] == CERTIFIED:
                found.append(n)
                break
    return min(found)


@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize("radius", [0.05, 0.25, 0.4])
def test_no_test_is_faster_than_what_is_called_out_of_reach(radius: float, alpha: float) -> None:
    certify = section({"certificate": "class", "radius": radius}, alpha=alpha)
    needed = perfect_draws(certify.targets[0], certify)
    # T1 along the margin: nothing that perfect draws show reaches farther
    took = draws_of_the_test(float(norm.cdf(radius / 0.25)), alpha)
    assert needed is not None and 0 < needed <= took
    assert took <= 1.6 * needed + 12, "so far from what it takes it would warn of nothing"


@pytest.mark.parametrize(
    "target",
    [
        {"certificate": "class", "radius": 0.55},
        {"certificate": "retrieval", "radius": 0.55},
        {"certificate": "vote", "radius": 0.55},
        {"certificate": "retrieval_vote", "radius": 0.55},
        {"certificate": "caption", "radius": 0.4, "cosine": 0.4},
        {"certificate": "fcsb", "radius": 0.4, "cosine": 0.5},
        {"certificate": "angular", "radius": 0.6, "cosine": 0.5},
        {"certificate": "clean_percentile", "radius": 0.55, "cosine": 0.5},
        {"certificate": "caption_percentile", "radius": 0.55, "cosine": -0.9},
    ],
)
def test_a_target_out_of_reach_is_refused_and_the_radius_that_is_named_is_not(
    target: dict[str, object],
) -> None:
    certify = section(target)
    with pytest.raises(
        JobError, match=rf"target '{target['certificate']}.*max_draws=300.*reach radius 0\."
    ) as refused:
        check_reach(certify)
    assert refused.value.remedy is not None
    named = float(refused.value.remedy.split("at most ")[1].split(",")[0])
    assert 0 < named < float(str(target["radius"]))
    check_reach(section({**target, "radius": named}))
    more = int(refused.value.remedy.split("max_draws to ")[1].split(" and")[0].replace(",", ""))
    check_reach(section(target, max_draws=more))
    with pytest.raises(JobError):
        check_reach(section(target, max_draws=more - 1))


def test_what_no_number_of_draws_shows_is_said_without_one() -> None:
    with pytest.raises(JobError) as refused:
        check_reach(section({"certificate": "class", "radius": 5.0}))
    assert "max_draws to" not in (refused.value.remedy or "") and "lower its radius" in (
        refused.value.remedy or ""
    )


@pytest.mark.parametrize("percentile", [0.2, 0.5, 0.8])
def test_the_reach_of_a_percentile_is_that_of_its_share(percentile: float) -> None:
    """Perfect draws are all at least the level: a share of 1, held against 1 - Phi(Phi^-1(q) - rho)."""
    target = {"certificate": "clean_percentile", "radius": 0.2, "cosine": 0.5}
    certify = section(target, percentile=percentile)
    needed = perfect_draws(certify.targets[0], certify)
    took = draws_of_the_test(float(norm.sf(norm.ppf(percentile) - 0.8)), 0.001)
    assert needed is not None and 0 < needed <= took <= 1.6 * needed + 12


def test_the_mean_that_fcsb_needs_is_the_one_it_says() -> None:
    certify = section({"certificate": "fcsb", "radius": 0.25, "cosine": 0.5}, max_draws=5)
    needed = perfect_draws(certify.targets[0], certify)
    score = float(norm.cdf(norm.ppf(0.75) + 1.0))
    assert float(fcsb(score + 1e-9, 0.25, 0.25)) >= 0.5 > float(fcsb(score - 1e-6, 0.25, 0.25))
    assert needed is not None and abs(needed - math.log(1000) / math.log(0.01 + 0.99 / score)) <= 1
