"""Targets that no pair can reach with the draws that a job allows: said before any work.

A target is certified when the betting capital reaches 1/alpha, and a draw multiplies it by at most (1 - c) + c/m, where
m is the mean that the target asks for and c = 0.99 the largest share that is staked (docs/theory.md section 3.4). So n
draws show no mean m with n ln((1 - c) + c/m) < ln(1/alpha), even if every one of them is perfect, and a target that
asks for more is out of their reach: no pair would be certified, whatever its image.
"""

from __future__ import annotations

import math

from scipy.special import ndtr, ndtri

from smoothcert.catalogue.certificates import of_name
from smoothcert.catalogue.evidence import Evidence
from smoothcert.catalogue.quantities import TO_SMOOTHED
from smoothcert.engine.thresholds import percentile_threshold
from smoothcert.errors import JobError
from smoothcert.job import CertifySection, Target
from smoothcert.statistics.betting import FRACTIONS

_STEPS = 20
_MOST = 2**40
"""Draws that stand for any number of them."""


def check_reach(certify: CertifySection) -> None:
    """Refuse a target that cannot be certified of any pair.

    Raises:
        JobError: it is out of reach of ``certify.max_draws``; the text says which radius is not.
    """
    best = best_mean(certify.max_draws, certify.alpha)
    for target in certify.targets:
        if _shows(best, target, certify) is not False:
            continue
        largest, needed = _largest_radius(best, target, certify), perfect_draws(target, certify)
        within = f"they reach radius {largest:.4g} at most" if largest > 0 else "they reach no radius"
        remedy = f"lower its radius to at most {largest:.4g}" if largest > 0 else "ask for less"
        if needed is not None:
            remedy += (
                f", or set certify.max_draws to {needed:,} and more, for pairs that are less than perfect"
            )
        raise JobError(
            f"target '{target.name}' can be certified of no pair: were all certify.max_draws={certify.max_draws} draws "
            f"perfect, at certify.alpha={certify.alpha:g} {within}",
            remedy=remedy,
        )


def best_mean(draws: int, alpha: float) -> float:
    """The largest mean that so many draws can show, all of them being 1; rounded up by a hair."""
    largest = max(FRACTIONS)
    return float(largest / (math.exp(math.log(1.0 / alpha) / draws) - (1.0 - largest))) + 1e-12


def perfect_draws(target: Target, certify: CertifySection) -> int | None:
    """The fewest draws that certify a target if all of them are perfect; None if none do, or none are known to."""
    if not _shows(best_mean(_MOST, certify.alpha), target, certify):
        return None
    low, high = 0, _MOST
    while high - low > 1:
        middle = (low + high) // 2
        if _shows(best_mean(middle, certify.alpha), target, certify):
            high = middle
        else:
            low = middle
    return high


def _shows(mean: float, target: Target, certify: CertifySection) -> bool | None:
    """Whether a target follows from a mean of scores in [0, 1]; None where this does not know.

    Of a vote, or of a projection on a fixed vector v, nothing better can be seen than that it is always 1. A share
    1 - p of the draws that is -v instead has the share 1 - Phi(Phi^-1(p) - rho) under attack, which makes the target
    false for p below Phi(Phi^-1((1 + level)/2) + rho). So whatever score in [0, 1] shows the target, and is 1 of
    perfect draws, must be asked for a mean of at least that. Of a percentile perfect draws all reach the level.
    """
    certificate, sigma = of_name(target.certificate), certify.sigma
    single, bound = certificate.single_mean, certificate.bound
    if single is not None and bound is not None and target.cosine is not None:
        return bool(float(bound.function(_value(single, mean), target.radius, sigma)) >= target.cosine)
    if certificate.single_quantile is not None and certify.percentile is not None:
        return mean >= percentile_threshold(certify.percentile, target.radius, sigma)
    if certificate.quantity == TO_SMOOTHED:
        return None
    level = target.cosine or 0.0
    return bool(mean >= ndtr(ndtri((1.0 + level) / 2.0) + target.radius / sigma))


def _value(single: Evidence, mean: float) -> float:
    """What stands in the column of a mean."""
    return min(2.0 * mean - 1.0 if single.projection else mean, 1.0)


def _largest_radius(mean: float, target: Target, certify: CertifySection) -> float:
    """The largest radius, rounded down, at which a target of this kind follows from a mean; 0 for none."""
    certificate = of_name(target.certificate)
    single, radius_at = certificate.single_mean, certificate.radius_at
    if single is not None and radius_at is not None and target.cosine is not None:
        found = float(radius_at.function(_value(single, mean), target.cosine, certify.sigma))
        return found * (1.0 - 1e-3) if found > 0 else 0.0
    low, high = 0.0, target.radius
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        if _shows(mean, target.model_copy(update={"radius": middle}), certify):
            low = middle
        else:
            high = middle
    return low * (1.0 - 1e-3)
