"""Certificates about other rules of decision than the smoothed mean: the vote, and percentiles of scores.

They are statements about other deployed systems, made from the same draws (docs/theory.md T9).
"""

from __future__ import annotations

from fractions import Fraction

from smoothcert.catalogue import functions
from smoothcert.catalogue.certificate import Certificate, Form
from smoothcert.catalogue.evidence import (
    CAPTION_QUANTILES,
    CLASS_QUANTILES,
    CLEAN_QUANTILES,
    PILOT_QUANTILES,
    RANK_VOTE_SHARE,
    VOTE_SHARE,
    Evidence,
)
from smoothcert.catalogue.quantities import (
    CAPTION_PERCENTILE,
    CLASS_PERCENTILE,
    CLASS_VOTES,
    CLEAN_PERCENTILE,
    PILOT_PERCENTILE,
    RANK_VOTES,
    Quantity,
)

_WHOLE = Fraction(1)
_PERCENTILE_SOURCE = "theory T9, Chiang et al. 2020"


def _of_cosine(name: str, quantity: Quantity, quantiles: Evidence, direction: str) -> Certificate:
    return Certificate(
        name=name,
        rule="percentile",
        quantity=quantity,
        source=_PERCENTILE_SOURCE,
        basis=(quantiles,),
        share_of_alpha=_WHOLE,
        switch="percentile",
        bound=Form(
            name,
            functions.percentile_cosine,
            "percentile_cosine",
            f"Certified percentile, by default the median, of a draw's cosine to {direction} under attack, one per "
            "radius of the job (counted up to the next eighth of sigma); element NULL where nothing is certified.",
        ),
        radius_at=Form(
            f"{name}_radius",
            functions.percentile_radius,
            "percentile_radius",
            f"Radius up to which {name} is at least the cosine, counted down to an eighth of sigma, one per cosine "
            "of the job; element NULL where there is none.",
        ),
        anywhere=True,
        target=True,
    )


def _of_projection(name: str, quantity: Quantity, quantiles: Evidence, of: str) -> Certificate:
    return Certificate(
        name=name,
        rule="percentile",
        quantity=quantity,
        source=_PERCENTILE_SOURCE,
        basis=(quantiles,),
        share_of_alpha=_WHOLE,
        switch="percentile",
        bound=Form(
            name,
            functions.percentile,
            "percentile_bound",
            f"Lower bound of the percentile, by default the median, of {of} under attack, one per radius of the job "
            "(counted up to the next eighth of sigma); may be negative; element NULL where nothing is certified.",
        ),
        anywhere=True,
        target=True,
    )


OTHER_RULES = (
    Certificate(
        name="vote",
        rule="vote",
        quantity=CLASS_VOTES,
        source="theory T9, Cohen et al. 2019",
        basis=(VOTE_SHARE,),
        share_of_alpha=_WHOLE,
        radius=Form(
            "vote_radius",
            functions.vote_radius,
            "vote_radius",
            "Radius within which most draws vote for vote_label. NULL where the vote abstains.",
        ),
        target=True,
        figure="certified_vote",
        right_figure="certified_vote_accuracy",
        leading=True,
    ),
    Certificate(
        name="retrieval_vote",
        rule="vote",
        quantity=RANK_VOTES,
        source="theory T9, Cohen et al. 2019",
        basis=(RANK_VOTE_SHARE,),
        share_of_alpha=_WHOLE,
        radius=Form(
            "retrieval_vote_radius",
            functions.vote_radius,
            "vote_radius",
            "Radius within which most draws have the own caption among the first k of the pool. NULL where the vote "
            "abstains.",
        ),
        target=True,
        figure="certified_retrieval_vote",
    ),
    _of_cosine("clean_percentile", CLEAN_PERCENTILE, CLEAN_QUANTILES, "the clean feature"),
    _of_cosine("pilot_percentile", PILOT_PERCENTILE, PILOT_QUANTILES, "the pilot direction"),
    _of_projection(
        "caption_percentile",
        CAPTION_PERCENTILE,
        CAPTION_QUANTILES,
        "a draw's inner product with the caption's feature",
    ),
    _of_projection(
        "class_percentile",
        CLASS_PERCENTILE,
        CLASS_QUANTILES,
        "a draw's smallest margin of vote_label over the other classes",
    ),
)
