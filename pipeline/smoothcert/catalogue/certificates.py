"""Every certificate, one entry each: everything that speaks of certificates loops over ``CATALOGUE``.

Columns of rows and their meaning, the views ``bounds`` and ``certified_share``, SQL functions, the audit, what attack
rows show as certified, summary, MLflow and docs/certificates.md follow from an entry. A wrong entry would mislead the
audit too: so every function has a brute-force test that knows nothing of this file.

Functions are imported when first called: a command that certifies nothing waits neither for numpy nor for scipy.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from smoothcert.catalogue import functions
from smoothcert.catalogue.answers import ANSWER_CERTIFICATES
from smoothcert.catalogue.certificate import Certificate, Form
from smoothcert.catalogue.evidence import (
    CAPTION_ALIGNMENT,
    CAPTION_LAW,
    CAPTION_SCALAR,
    CLASS_LAW,
    CLASS_RIVAL_ALIGNMENT,
    CLASS_RIVAL_MARGIN,
    CLASS_SCALAR,
    CLEAN_LAW,
    CLEAN_SCALAR,
    EIGENVALUE,
    ESCAPE,
    EXCEEDANCE,
    NORM,
    RANK_LAW,
    RANK_RIVAL_ALIGNMENT,
    RANK_RIVAL_MARGIN,
    RANK_SCALAR,
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

_WHOLE, _HALF, _THIRD = Fraction(1), Fraction(1, 2), Fraction(1, 3)

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
            functions.fcsb,
            "fcsb",
            "Certified cosine between smoothed feature under attack and clean feature, one per radius of the "
            "job; element NULL where nothing is certified.",
        ),
        radius_at=Form(
            "fcsb_radius",
            functions.fcsb_radius,
            "fcsb_radius",
            "Radius up to which fcsb is at least the cosine, one per cosine of the job; element NULL where "
            "there is none.",
        ),
        anywhere=True,
        target=True,
        leading=True,
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
            functions.angular_bound,
            "angular_bound",
            "Certified cosine between smoothed features with and without attack, one per radius of the job; "
            "element NULL where nothing is certified.",
        ),
        radius_at=Form(
            "angular_radius",
            functions.angular_radius,
            "angular_radius",
            "Radius up to which angular is at least the cosine, one per cosine of the job; element NULL where "
            "there is none.",
        ),
        anywhere=True,
        target=True,
        leading=True,
    ),
    Certificate(
        name="second_moment",
        rule="mean",
        quantity=TO_SMOOTHED,
        source="theory T7",
        basis=(NORM, EIGENVALUE, ESCAPE),
        share_of_alpha=_THIRD,
        bound=Form(
            "second_moment",
            functions.second_moment_bound,
            "second_moment_bound",
            "As angular, by the largest eigenvalue of the features' second moment too; element NULL where nothing is "
            "certified.",
        ),
        radius_at=Form(
            "second_moment_radius",
            functions.second_moment_radius,
            "second_moment_radius",
            "Radius up to which second_moment is at least the cosine, one per cosine of the job; element NULL where "
            "there is none.",
        ),
        switch="second_moment",
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
            functions.clean_reference,
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
            functions.large_radius,
            "large_radius_bound",
            "As fcsb, by exceedance probabilities, which reach larger radii; element NULL where nothing is "
            "certified.",
        ),
    ),
    Certificate(
        name="clean_distribution",
        rule="mean",
        quantity=TO_CLEAN,
        source="theory T8",
        basis=(CLEAN_SCALAR, CLEAN_LAW),
        share_of_alpha=_WHOLE,
        beside="fcsb",
        bound=Form(
            "clean_distribution",
            functions.clean_distribution,
            "cosine_distribution_bound",
            "As fcsb, by the distribution of the draws' cosines to the clean feature; element NULL where nothing is "
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
            functions.margin_radius,
            "margin_radius",
            "Radius within which the smoothed encoder predicts predicted_label. NULL where none is certified.",
        ),
        target=True,
        figure="certified_prediction",
        right_figure="certified_accuracy",
    ),
    Certificate(
        name="class_distribution",
        rule="mean",
        quantity=CLASS_MARGIN,
        source="theory T8",
        basis=(CLASS_SCALAR, CLASS_LAW),
        share_of_alpha=_WHOLE,
        beside="class",
        bound=Form(
            "class_distribution",
            functions.rival_distribution,
            "rival_distribution_bound",
            "Lower bound of the smallest margin of predicted_label over all rival classes under attack, by the "
            "distribution of the draws' margins, one per radius of the job: the smoothed encoder predicts "
            "predicted_label there. Element NULL where that is not certified.",
        ),
        figure="certified_prediction_by_distribution",
        right_figure="certified_accuracy_by_distribution",
        leading=True,
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
            functions.similarity_bound,
            "similarity_bound",
            "Lower bound of the inner product of smoothed feature under attack and caption feature, one per "
            "radius of the job; may be negative, since it bounds a projection; element NULL where nothing is "
            "certified.",
        ),
        target=True,
    ),
    Certificate(
        name="caption_distribution",
        rule="mean",
        quantity=TO_CAPTION,
        source="theory T8",
        basis=(CAPTION_SCALAR, CAPTION_LAW),
        share_of_alpha=_WHOLE,
        beside="caption",
        bound=Form(
            "caption_distribution",
            functions.distribution,
            "distribution_bound",
            "As caption_bound, by the distribution of the draws' inner products with the caption's feature; may be "
            "negative; element NULL where nothing is certified.",
        ),
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
            functions.margin_radius,
            "margin_radius",
            "Radius within which the own caption feature stays among the first k of the pool. NULL where none is "
            "certified.",
        ),
        target=True,
        figure="certified_retrieval",
    ),
    Certificate(
        name="retrieval_distribution",
        rule="mean",
        quantity=RANK_MARGIN,
        source="theory T8",
        basis=(RANK_SCALAR, RANK_LAW),
        share_of_alpha=_WHOLE,
        beside="retrieval",
        bound=Form(
            "retrieval_distribution",
            functions.rival_distribution,
            "rival_distribution_bound",
            "Lower bound of the k-th smallest margin of the own caption over the others of the pool under attack, by "
            "the distribution of the draws' margins, one per radius of the job: the own caption stays among the first "
            "k there. Element NULL where that is not certified, and where there are fewer than k rivals.",
        ),
        figure="certified_retrieval_by_distribution",
        leading=True,
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
    for certificate in (*CATALOGUE, *ANSWER_CERTIFICATES):
        for form in certificate.forms:
            found.setdefault(form.sql, (certificate, form))
    return found
