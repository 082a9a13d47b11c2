"""Certificates about answers of multimodal models: what the table ``answers`` claims, one entry each.

They are statements about one question, not about a pair, and about a system that asks a model about noisy images. Rows,
columns, SQL functions, the audit, figures and docs/certificates.md follow from an entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from smoothcert.catalogue import functions
from smoothcert.catalogue.certificate import Certificate, Form
from smoothcert.catalogue.evidence import Evidence
from smoothcert.catalogue.quantities import Quantity

_WHOLE = Fraction(1)

ANSWER_SHARE = Evidence(
    name="share",
    column="vote_share_lcb",
    kind="mean",
    votes=True,
    source="theory T9",
)
"""P(a noisy image is answered with the class that most pilot draws got)."""
ANSWER_SCORE = Evidence(
    name="score",
    column="score_lcb",
    kind="mean",
    estimate="score",
    meaning="Lower bound of the mean of score_metric under noise, at every stopping time. NULL without.",
)
"""Mean of a metric of the answers to noisy images."""
ANSWER_QUANTILES = Evidence(
    name="quantiles",
    column="score_quantile_lcb",
    kind="quantiles",
    size=25,
    meaning="Lower confidence bounds of quantiles of score_metric, each at alpha: of the job's percentile, then of "
    "those to which an attack of 1/8, 2/8, ..., 24/8 sigma can shift it; 0 where the draws are too few. NULL without a "
    "score, or without a percentile.",
    source="theory T9",
)
"""At the shifts of ``certificates.PERCENTILE_SHIFTS``."""

ANSWER_CERTIFICATES: Sequence[Certificate] = (
    Certificate(
        name="answer_vote",
        rule="vote",
        quantity=Quantity(name="votes for an answer", attacked="", floor=0.5),
        source="theory T9, Cohen et al. 2019",
        basis=(ANSWER_SHARE,),
        share_of_alpha=_WHOLE,
        radius=Form(
            "vote_radius",
            functions.vote_radius,
            "vote_radius",
            "Of vote: l2 radius within which the class keeps more than half of the votes, so that the answer stays. "
            "NULL: nothing is certified.",
        ),
        figure="answers_certified",
    ),
    Certificate(
        name="answer_score",
        rule="mean",
        quantity=Quantity(name="mean score of noisy answers", attacked=""),
        source="theory T1",
        basis=(ANSWER_SCORE,),
        share_of_alpha=_WHOLE,
        bound=Form(
            "score_bounds",
            functions.score_bound,
            "score_bound",
            "Lower bounds of the mean of score_metric under noise and any l2 attack of the job's radii, one each; "
            "element NULL where nothing is certified. NULL without.",
        ),
        figure="answers_certified_score",
        anywhere=True,
    ),
    Certificate(
        name="answer_score_percentile",
        rule="percentile",
        quantity=Quantity(name="percentile of the scores of noisy answers", attacked=""),
        source="theory T9, Chiang et al. 2020",
        basis=(ANSWER_QUANTILES,),
        share_of_alpha=_WHOLE,
        bound=Form(
            "score_percentile_bounds",
            functions.score_percentile,
            "score_percentile_bound",
            "Lower bounds of the job's percentile, by default the median, of score_metric under noise and any l2 "
            "attack of the job's radii, one each (counted up to the next eighth of sigma); element NULL where nothing "
            "is certified. NULL without.",
        ),
        figure="answers_certified_score_percentile",
        anywhere=True,
    ),
)
"""In the order in which they are shown."""
