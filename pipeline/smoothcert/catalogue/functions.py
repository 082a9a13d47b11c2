"""The functions of the catalogue's certificates, as a row's numbers go in; they are imported when first called."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from smoothcert.catalogue.evidence import FloatArray


def fcsb(score: ArrayLike, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """See ``certificates.fcsb``."""
    from smoothcert import certificates

    return certificates.fcsb(score, radius, sigma)


def fcsb_radius(score: ArrayLike, cosine: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """See ``certificates.fcsb_radius``."""
    from smoothcert import certificates

    return certificates.fcsb_radius(score, cosine, sigma)


def angular_bound(norm: ArrayLike, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """See ``certificates.angular_bound``."""
    from smoothcert import certificates

    return certificates.angular_bound(_not_negative(norm), radius, sigma)


def angular_radius(norm: ArrayLike, cosine: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """See ``certificates.angular_radius``."""
    from smoothcert import certificates

    return certificates.angular_radius(_not_negative(norm), cosine, sigma)


def second_moment_bound(
    norm: ArrayLike, eigenvalue: ArrayLike, escape: ArrayLike, radius: ArrayLike, sigma: ArrayLike
) -> FloatArray:
    """See ``certificates.second_moment_bound``."""
    from smoothcert import certificates

    return certificates.second_moment_bound(_not_negative(norm), eigenvalue, radius, sigma, escape=escape)


def second_moment_radius(
    norm: ArrayLike, eigenvalue: ArrayLike, escape: ArrayLike, cosine: ArrayLike, sigma: ArrayLike
) -> FloatArray:
    """See ``certificates.second_moment_radius``."""
    from smoothcert import certificates

    return certificates.second_moment_radius(_not_negative(norm), eigenvalue, cosine, sigma, escape=escape)


def clean_reference(score: ArrayLike, norm: ArrayLike, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """See ``certificates.clean_reference_bound``."""
    from smoothcert import certificates

    return certificates.clean_reference_bound(projection_of_score(score), norm, radius, sigma)


def large_radius(exceedance: ArrayLike, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """See ``certificates.large_radius_bound``."""
    from smoothcert import certificates

    return certificates.large_radius_bound(exceedance, certificates.LARGE_RADIUS_THRESHOLDS, radius, sigma)


def margin_radius(margin: ArrayLike, norm: ArrayLike, alignment: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """See ``certificates.margin_radius``."""
    from smoothcert import certificates

    return certificates.margin_radius(margin, norm, alignment, sigma)


def similarity_bound(
    similarity: ArrayLike, norm: ArrayLike, alignment: ArrayLike, radius: ArrayLike, sigma: ArrayLike
) -> FloatArray:
    """See ``certificates.similarity_bound``."""
    from smoothcert import certificates

    return certificates.similarity_bound(similarity, norm, alignment, radius, sigma)


def clean_distribution(scalar: ArrayLike, law: ArrayLike, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """See ``certificates.cosine_distribution_bound``."""
    from smoothcert import certificates

    return certificates.cosine_distribution_bound(scalar, law, radius, sigma)


def distribution(scalar: ArrayLike, law: ArrayLike, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """See ``certificates.distribution_bound``."""
    from smoothcert import certificates

    return certificates.distribution_bound(scalar, law, radius, sigma)


def rival_distribution(scalar: ArrayLike, law: ArrayLike, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """See ``certificates.rival_distribution_bound``."""
    from smoothcert import certificates

    return certificates.rival_distribution_bound(scalar, law, radius, sigma)


def vote_radius(share: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """See ``certificates.vote_radius``."""
    from smoothcert import certificates

    return certificates.vote_radius(share, sigma)


def percentile(quantiles: ArrayLike, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """See ``certificates.shifted_percentile``."""
    from smoothcert import certificates

    return certificates.shifted_percentile(quantiles, radius, sigma)


def score_bound(score: ArrayLike, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """See ``certificates.score_bound``."""
    from smoothcert import certificates

    return certificates.score_bound(score, radius, sigma)


def score_percentile(quantiles: ArrayLike, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """``percentile`` of a score in [0,1] where it is above 0, which every score is without a promise; else NaN."""
    import numpy as np

    bound = percentile(quantiles, radius, sigma)
    return np.where(bound > 0.0, bound, np.nan)


def percentile_cosine(quantiles: ArrayLike, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """``percentile`` where it is at least 0, else NaN."""
    import numpy as np

    bound = percentile(quantiles, radius, sigma)
    return np.where(bound >= 0.0, bound, np.nan)


def percentile_radius(quantiles: ArrayLike, cosine: ArrayLike, sigma: ArrayLike) -> FloatArray:
    """See ``certificates.shifted_percentile_radius``."""
    from smoothcert import certificates

    return certificates.shifted_percentile_radius(quantiles, cosine, sigma)


def projection_of_score(score: ArrayLike) -> FloatArray:
    """2 score - 1 for lower bounds of scores in [0,1], rounded down."""
    import numpy as np

    return np.maximum(np.nextafter(2.0 * np.asarray(score, dtype=np.float64) - 1.0, -2.0), -1.0)


def _not_negative(norm: ArrayLike) -> FloatArray:
    """A norm is never less: then nothing follows from it."""
    import numpy as np

    return np.maximum(np.asarray(norm, dtype=np.float64), 0.0)
