"""Every certificate, one entry each: everything that speaks of certificates loops over ``CATALOGUE``.

Columns of rows and their meaning, the views ``bounds`` and ``certified_share``, SQL functions, the audit, what attack
rows show as certified, summary, MLflow and docs/certificates.md follow from an entry. A wrong entry would mislead the
audit too: so every function has a brute-force test that knows nothing of this file.

Functions are imported when first called: a command that certifies nothing waits neither for numpy nor for scipy.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from smoothcert.catalogue.certificate import Certificate, Form
from smoothcert.catalogue.evidence import (
    CAPTION_ALIGNMENT,
    CLASS_RIVAL_ALIGNMENT,
    CLASS_RIVAL_MARGIN,
    EXCEEDANCE,
    NORM,
    RANK_RIVAL_ALIGNMENT,
    RANK_RIVAL_MARGIN,
    SCORE,
    SIMILARITY,
    Evidence,
)
from smoothcert.catalogue.other_rules import OTHER_RULES
from smoothcert.catalogue.quantities import (
    CLASS_MARGIN,
    RANK_MARGIN,
    TO_CAPTION,
    TO_CLEAN,
    TO_SMOOTHED,
    Quantity,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from smoothcert.catalogue.evidence import FloatArray


def _fcsb(score: ArrayLike, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    from smoothcert.certificates import fcsb

    return fcsb(score, radius, sigma)


def _fcsb_radius(score: ArrayLike, cosine: ArrayLike, sigma: ArrayLike) -> FloatArray:
    from smoothcert.certificates import fcsb_radius

    return fcsb_radius(score, cosine, sigma)


def _angular_bound(norm: ArrayLike, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    from smoothcert.certificates import angular_bound

    return angular_bound(_not_negative(norm), radius, sigma)


def _angular_radius(norm: ArrayLike, cosine: ArrayLike, sigma: ArrayLike) -> FloatArray:
    from smoothcert.certificates import angular_radius

    return angular_radius(_not_negative(norm), cosine, sigma)


def _clean_reference(score: ArrayLike, norm: ArrayLike, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    from smoothcert.certificates import clean_reference_bound

    return clean_reference_bound(projection_of_score(score), norm, radius, sigma)


def _large_radius(exceedance: ArrayLike, radius: ArrayLike, sigma: ArrayLike) -> FloatArray:
    from smoothcert.certificates import LARGE_RADIUS_THRESHOLDS, large_radius_bound

    return large_radius_bound(exceedance, LARGE_RADIUS_THRESHOLDS, radius, sigma)


def _margin_radius(margin: ArrayLike, norm: ArrayLike, alignment: ArrayLike, sigma: ArrayLike) -> FloatArray:
    from smoothcert.certificates import margin_radius

    return margin_radius(margin, norm, alignment, sigma)


def _similarity_bound(
    similarity: ArrayLike, norm: ArrayLike, alignment: ArrayLike, radius: ArrayLike, sigma: ArrayLike
) -> FloatArray:
    from smoothcert.certificates import similarity_bound

    return similarity_bound(similarity, norm, alignment, radius, sigma)


def projection_of_score(score: ArrayLike) -> FloatArray:
    """2 score - 1 for lower bounds of scores in [0,1], rounded down."""
    import numpy as np

    return np.maximum(np.nextafter(2.0 * np.asarray(score, dtype=np.float64) - 1.0, -2.0), -1.0)


def _not_negative(norm: ArrayLike) -> FloatArray:
    """A norm is never less: then nothing follows from it."""
    import numpy as np

    return np.maximum(np.asarray(norm, dtype=np.float64), 0.0)


_WHOLE, _HALF = Fraction(1), Fraction(1, 2)

CATALOGUE: Sequence[Certificate] = (
    Certificate(
        name="fcsb",
        rule="mean",
        quantity=TO_CLEAN,
        source="theory T2",
        basis=(SCORE,),
        share_of_alpha=_WHOLE,
        bound=Form(
            "fcsb",
            _fcsb,
            "fcsb",
            "Certified cosine between smoothed feature under attack and clean feature, one per radius of the "
            "job; element NULL where nothing is certified.",
        ),
        radius_at=Form(
            "fcsb_radius",
            _fcsb_radius,
            "fcsb_radius",
            "Radius up to which fcsb is at least the cosine, one per cosine of the job; element NULL where "
            "there is none.",
        ),
        anywhere=True,
        target=True,
    ),
    Certificate(
        name="angular",
        rule="mean",
        quantity=TO_SMOOTHED,
        source="theory T3",
        basis=(NORM,),
        share_of_alpha=_WHOLE,
        bound=Form(
            "angular",
            _angular_bound,
            "angular_bound",
            "Certified cosine between smoothed features with and without attack, one per radius of the job; "
            "element NULL where nothing is certified.",
        ),
        radius_at=Form(
            "angular_radius",
            _angular_radius,
            "angular_radius",
            "Radius up to which angular is at least the cosine, one per cosine of the job; element NULL where "
            "there is none.",
        ),
        anywhere=True,
        target=True,
    ),
    Certificate(
        name="clean_reference",
        rule="mean",
        quantity=TO_CLEAN,
        source="theory T5, T2",
        basis=(SCORE, NORM),
        share_of_alpha=_HALF,
        bound=Form(
            "clean_reference",
            _clean_reference,
            "clean_reference_bound",
            "As fcsb, by the better of T2 and T5 at a shared alpha; element NULL where nothing is certified.",
        ),
    ),
    Certificate(
        name="large_radius",
        rule="mean",
        quantity=TO_CLEAN,
        source="theory T6",
        basis=(EXCEEDANCE,),
        share_of_alpha=EXCEEDANCE.level,
        bound=Form(
            "large_radius",
            _large_radius,
            "large_radius_bound",
            "As fcsb, by exceedance probabilities, which reach larger radii; element NULL where nothing is "
            "certified.",
        ),
    ),
    Certificate(
        name="class",
        rule="mean",
        quantity=CLASS_MARGIN,
        source="theory T4",
        basis=(CLASS_RIVAL_MARGIN, NORM, CLASS_RIVAL_ALIGNMENT),
        share_of_alpha=_HALF,
        radius=Form(
            "certified_radius",
            _margin_radius,
            "margin_radius",
            "Radius within which the smoothed encoder predicts predicted_label. NULL where none is certified.",
        ),
        target=True,
        figure="certified_prediction",
        right_figure="certified_accuracy",
    ),
    Certificate(
        name="caption",
        rule="mean",
        quantity=TO_CAPTION,
        source="theory T4",
        basis=(SIMILARITY, NORM, CAPTION_ALIGNMENT),
        share_of_alpha=_HALF,
        bound=Form(
            "caption_bound",
            _similarity_bound,
            "similarity_bound",
            "Lower bound of the inner product of smoothed feature under attack and caption feature, one per "
            "radius of the job; may be negative, since it bounds a projection; element NULL where nothing is "
            "certified.",
        ),
        target=True,
    ),
    Certificate(
        name="retrieval",
        rule="mean",
        quantity=RANK_MARGIN,
        source="theory T4",
        basis=(RANK_RIVAL_MARGIN, NORM, RANK_RIVAL_ALIGNMENT),
        share_of_alpha=_HALF,
        radius=Form(
            "retrieval_radius",
            _margin_radius,
            "margin_radius",
            "Radius within which the own caption feature stays among the first k of the pool. NULL where none is "
            "certified.",
        ),
        target=True,
        figure="certified_retrieval",
    ),
    *OTHER_RULES,
)
"""In the order in which they are shown."""


def of_quantity(quantity: Quantity) -> list[Certificate]:
    """The certificates that bound a quantity."""
    return [each for each in CATALOGUE if each.quantity == quantity]


def quantities() -> list[Quantity]:
    """Each quantity that something is certified of, once."""
    return list(dict.fromkeys(each.quantity for each in CATALOGUE))


def evidence() -> list[Evidence]:
    """Each column that certificates rest on, once."""
    return list(dict.fromkeys(each for certificate in CATALOGUE for each in certificate.basis))


def of_name(name: str) -> Certificate:
    """The certificate of that name.

    Raises:
        KeyError: there is none.
    """
    found = {each.name: each for each in CATALOGUE}
    return found[name]


def sql_functions() -> dict[str, tuple[Certificate, Form]]:
    """SQL functions by name: certificates that differ only in where their numbers stand share one."""
    found: dict[str, tuple[Certificate, Form]] = {}
    for certificate in CATALOGUE:
        for form in certificate.forms:
            found.setdefault(form.sql, (certificate, form))
    return found
