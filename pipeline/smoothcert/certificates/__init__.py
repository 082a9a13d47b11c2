"""Certificates (docs/theory.md section 2): pure functions of numbers. numpy and scipy only.

Array-like in, float64 arrays out. NaN in is an error; a certificate that says nothing is NaN (vacuous). Lower
bounds are rounded down, upper bounds up. Probabilities enter only through the numbers passed in: given that
those bounds hold, every certificate here is certain.
"""

from smoothcert.certificates.angular import angular_bound, angular_radius
from smoothcert.certificates.deployment import deployment_gap
from smoothcert.certificates.direction import dual_direction
from smoothcert.certificates.dual import dual_bound
from smoothcert.certificates.margin import margin_radius, rank_radius
from smoothcert.certificates.margin_scalar import MarginScalar
from smoothcert.certificates.normal_scalar import (
    LAW,
    LAW_RANGE,
    cosine_distribution_bound,
    distribution_bound,
    normal_scalar,
    rival_distribution_bound,
)
from smoothcert.certificates.projection import fcsb, fcsb_radius, projection_bound, score_bound
from smoothcert.certificates.reference import clean_reference_bound
from smoothcert.certificates.scalar_choice import choose_law, choose_scalar, speed_of_test
from smoothcert.certificates.second_moment import second_moment_bound, second_moment_radius
from smoothcert.certificates.similarity import similarity_bound
from smoothcert.certificates.staircase import LARGE_RADIUS_THRESHOLDS, large_radius_bound
from smoothcert.certificates.straight_scalar import straight_bound, straight_law, straight_score
from smoothcert.certificates.vote import (
    PERCENTILE_SHIFTS,
    percentile_radius,
    percentile_share,
    shifted_percentile,
    shifted_percentile_radius,
    vote_radius,
    vote_reach,
)

__all__ = [
    "LAW",
    "LAW_RANGE",
    "choose_law",
    "cosine_distribution_bound",
    "distribution_bound",
    "normal_scalar",
    "rival_distribution_bound",
    "speed_of_test",
    "LARGE_RADIUS_THRESHOLDS",
    "MarginScalar",
    "PERCENTILE_SHIFTS",
    "angular_bound",
    "angular_radius",
    "choose_scalar",
    "clean_reference_bound",
    "deployment_gap",
    "dual_bound",
    "dual_direction",
    "fcsb",
    "fcsb_radius",
    "large_radius_bound",
    "margin_radius",
    "percentile_radius",
    "percentile_share",
    "projection_bound",
    "score_bound",
    "rank_radius",
    "second_moment_bound",
    "second_moment_radius",
    "shifted_percentile",
    "shifted_percentile_radius",
    "similarity_bound",
    "straight_bound",
    "straight_law",
    "straight_score",
    "vote_radius",
    "vote_reach",
]
