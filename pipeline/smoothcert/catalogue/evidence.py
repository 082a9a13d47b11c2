"""What certificates follow from: lower confidence bounds from a pair's draws, and numbers that are known exactly.

Each stands in a column of its own, so that a row can be computed anew. All probability is here: given that these
bounds hold, every certificate is certain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

Direction = Literal["pilot", "clean", "caption", "class_margin", "class_vote", "retrieval_vote"]
"""What gives each draw of a pair a score in [0,1], kept for every pair: a fixed unit vector, by (1 + <u(x+eps),
direction>)/2; the smallest margin of a class over all others, in the same way; or a vote, which is 0 or 1."""

Statistic = Callable[["FloatArray", float, bool], "FloatArray"]
"""(scores (..., n) of pairs' draws in [0,1], level of each bound, whether n was chosen by looking) -> (..., size) lower
confidence bounds. They must hold at any stopping time where n was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One column that certificates rest on.

    Attributes:
        name: what SQL functions call it.
        column: of the table ``certificates``, or of ``answers`` (catalogue/answers.py).
        kind: ``mean``: lower confidence bound of a mean score along ``direction``. ``quantiles``: lower confidence
            bounds of the quantiles to which attacks of growing size shift the job's percentile of these scores, each
            by itself at ``level``; ``low`` where so few draws bound nothing. ``statistic``: other bounds from the
            same scores. ``known``: no draws in it, so it cannot fail. ``rival``: of the binding rival, which is found
            while certifying (engine/rival_bounds.py). ``scalar``: of the mean of a scalar that was fixed on the pilot,
            and ``law``: that scalar, which cannot fail (engine/distribution.py). ``upper``: an upper confidence bound.
        direction: which scores; empty for known and rival, and for scalars of the binding rival.
        votes: whether each score is 0 or 1, so that an exact binomial bound is had.
        projection: whether the column holds 2 score - 1, in [-1,1], in place of a score in [0,1].
        estimate: column of the estimate that the bound may not exceed, or fall below of kind ``upper``; empty for none.
        level: share of alpha at which the column's bounds stand, each of them.
        ranked: whether that level is split over the k ranks of a retrieval section too.
        null: what NULL stands for; None where nothing is known then.
        low: smallest value of the column.
        high: largest value of the column.
        size: 0 for one number, else the length of the list.
        per_radius: whether the column has so much for each radius of the job, one after the other.
        statistic: how to compute it, of kind ``statistic``.
        meaning: of the column; empty where it is documented beside its estimate.
        source: where it comes from.
    """

    name: str
    column: str
    kind: Literal["mean", "quantiles", "statistic", "known", "rival", "scalar", "law", "upper"]
    direction: Direction | Literal[""] = ""
    votes: bool = False
    projection: bool = False
    estimate: str = ""
    level: Fraction = Fraction(1)
    ranked: bool = False
    null: float | None = None
    low: float = 0.0
    high: float = 1.0
    size: int = 0
    per_radius: bool = False
    statistic: Statistic | None = None
    meaning: str = ""
    source: str = ""

    @property
    def bounds(self) -> int:
        """How many confidence bounds a statement takes from it: each may fail at its level.

        Of quantiles it is one: that of the statement's radius; and of a cosine the smallest radius at which it is not
        kept, for which the bound of every larger radius is too low to say otherwise.
        """
        if self.exact:
            return 0
        return 1 if self.kind == "quantiles" else max(1, self.size)

    @property
    def exact(self) -> bool:
        """Whether no draw is in it, so that it cannot fail."""
        return self.kind in ("known", "law")

    @property
    def listed(self) -> bool:
        """Whether its column is a list."""
        return self.size > 0 or self.per_radius


SCORE = Evidence(
    name="score",
    column="robustness_score_lcb",
    kind="mean",
    direction="clean",
    estimate="robustness_score",
)
"""S, the Gaussian robustness score."""

NORM = Evidence(
    name="norm",
    column="smooth_norm_lcb",
    kind="mean",
    direction="pilot",
    projection=True,
    estimate="smooth_norm",
    null=0.0,
)
"""N, by way of <m(x), v> for the pilot direction v: what is not above 0 says nothing, and is NULL in tables."""

SIMILARITY = Evidence(
    name="similarity",
    column="caption_similarity_lcb",
    kind="mean",
    direction="caption",
    projection=True,
    estimate="caption_similarity",
    low=-1.0,
)
"""<m(x), t> for the caption's feature t."""

CAPTION_ALIGNMENT = Evidence(name="alignment", column="caption_alignment", kind="known", low=-1.0)
"""<v, t> of pilot direction and caption."""

CLASS_RIVAL_MARGIN = Evidence(
    name="margin",
    column="class_rival_margin_lcb",
    kind="rival",
    projection=True,
    level=Fraction(1, 2),
    null=-1.0,
    low=-1.0,
)
CLASS_RIVAL_ALIGNMENT = Evidence(name="alignment", column="class_rival_alignment", kind="known", low=-1.0)
RANK_RIVAL_MARGIN = Evidence(
    name="margin",
    column="retrieval_rival_margin_lcb",
    kind="rival",
    projection=True,
    level=Fraction(1, 2),
    ranked=True,
    null=-1.0,
    low=-1.0,
)
RANK_RIVAL_ALIGNMENT = Evidence(name="alignment", column="retrieval_rival_alignment", kind="known", low=-1.0)


def _exceedance(scores: FloatArray, level: float, anytime: bool) -> FloatArray:
    import numpy as np

    from smoothcert.certificates import LARGE_RADIUS_THRESHOLDS
    from smoothcert.statistics import lower_bound, vote_share_bound

    thresholds = (1.0 + np.array(LARGE_RADIUS_THRESHOLDS)[:, None]) / 2.0
    above = scores[..., None, :] >= thresholds
    if anytime:
        return lower_bound(above.astype(np.float64), level, "betting")
    votes, n = np.count_nonzero(above, axis=-1), scores.shape[-1]
    return np.asarray(np.minimum(vote_share_bound(votes, n, level), votes / n))


EXCEEDANCE = Evidence(
    name="exceedance",
    column="exceedance_lcb",
    kind="statistic",
    direction="clean",
    level=Fraction(1, 8),
    size=8,
    statistic=_exceedance,
    meaning="Lower confidence bounds of the probabilities that a draw's cosine to the clean feature is at least 0, "
    "0.125, 0.25, ..., 0.875, each at an eighth of alpha; large_radius rests on them. NULL in quarantined rows.",
    source="theory T6, p_j",
)
"""P(<u(x+eps), u(x)> >= c_j) at the thresholds of ``certificates.LARGE_RADIUS_THRESHOLDS``."""

EIGENVALUE = Evidence(
    name="eigenvalue",
    column="eigenvalue_ucb",
    kind="upper",
    level=Fraction(1, 3),
    high=4.0,
    estimate="eigenvalue",
    meaning="Upper confidence bound, at a third of alpha, of the largest eigenvalue of the second moment of the "
    "features about their pilot mean, of draws in a ball about it that the pilot fixed. NULL where it is not measured.",
    source="theory T7, lambda_b",
)
ESCAPE = Evidence(
    name="escape",
    column="escape_ucb",
    kind="upper",
    level=Fraction(1, 3),
    meaning="Upper confidence bound, at a third of alpha, of the probability that a draw's feature is outside that "
    "ball. NULL where it is not measured.",
    source="theory T7, p_0",
)


BESIDE = Fraction(1, 50)
"""Part of alpha that T4 has in a certificate by the distribution; a row has the better of both (engine/beside.py)."""


def _scalar(name: str, of: str, level: str, direction: Direction | Literal[""], ranked: bool) -> Evidence:
    return Evidence(
        name="scalar",
        column=f"{name}_scalar_lcb",
        kind="scalar",
        direction=direction,
        ranked=ranked,
        per_radius=True,
        meaning=f"Lower confidence bounds, at 49/50 of {level} and of T4 at 1/50, of the mean scores of the scalars in "
        f"{name}_scalar, which are about {of}; one per radius of the job, and element NULL from the radius on at which "
        "nothing is certified.",
        source="theory T8, E h",
    )


def _law(name: str, of: str, direction: Direction | Literal[""]) -> Evidence:
    return Evidence(
        name="law",
        column=f"{name}_scalar",
        kind="law",
        direction=direction,
        low=-10.0,
        high=10.0,
        size=5,
        per_radius=True,
        meaning=f"The scalar of {of} that pilot draws chose for each radius of the job, five numbers each: centre, "
        "spread and end of a normal law, the shift it was made for, and the mean score of the draws, an estimate. "
        "Where the shift is -1, the scalar is T4's: logarithms of its multipliers of margin and pilot direction (-10 "
        "for none), and the inner product of the pilot direction with what would push that down. NULL in quarantined "
        "rows, and where there is no such score.",
        source="theory T8, h",
    )


_CLEAN, _CAPTION = "the cosine to the clean feature", "the inner product with the caption's feature"
_CLASS, _RANK = (
    "the margin over the rival class that binds there, or the smallest over far ones",
    "the margin over the caption that binds there, or the smallest over far ones",
)

CLEAN_SCALAR, CLEAN_LAW = _scalar("clean", _CLEAN, "alpha", "clean", False), _law("clean", _CLEAN, "clean")
CAPTION_SCALAR = _scalar("caption", _CAPTION, "alpha", "caption", False)
CAPTION_LAW = _law("caption", _CAPTION, "caption")
CLASS_SCALAR, CLASS_LAW = _scalar("class", _CLASS, "alpha", "", False), _law("class", _CLASS, "")
RANK_SCALAR = _scalar("retrieval", _RANK, "alpha/k", "", True)
RANK_LAW = _law("retrieval", _RANK, "")


VOTE_SHARE = Evidence(
    name="share",
    column="vote_share_lcb",
    kind="mean",
    direction="class_vote",
    votes=True,
    estimate="vote_share",
    source="theory T9",
)
"""P(a draw votes for the class that most pilot draws voted for)."""
RANK_VOTE_SHARE = Evidence(
    name="share",
    column="retrieval_vote_share_lcb",
    kind="mean",
    direction="retrieval_vote",
    votes=True,
    estimate="retrieval_vote_share",
    source="theory T9",
)
"""P(the own caption is among the first k of the pool for a draw)."""


def _quantiles(direction: Direction, column: str, of: str) -> Evidence:
    return Evidence(
        name="quantiles",
        column=column,
        kind="quantiles",
        direction=direction,
        projection=True,
        low=-1.0,
        size=25,
        meaning=f"Lower confidence bounds of quantiles of {of}, each at alpha: of the job's percentile, then of "
        "those to which an attack of 1/8, 2/8, ..., 24/8 sigma can shift it; -1 where the draws are too few. NULL "
        "where there is no such score, and in quarantined rows.",
        source="theory T9",
    )


CLEAN_QUANTILES = _quantiles("clean", "clean_quantile_lcb", "a draw's cosine to the clean feature")
PILOT_QUANTILES = _quantiles("pilot", "pilot_quantile_lcb", "a draw's cosine to the pilot direction")
CAPTION_QUANTILES = _quantiles(
    "caption", "caption_quantile_lcb", "a draw's inner product with the caption's feature"
)
CLASS_QUANTILES = _quantiles(
    "class_margin", "class_quantile_lcb", "a draw's smallest margin of vote_label over the other classes"
)
"""At the shifts of ``certificates.PERCENTILE_SHIFTS``."""


def part_of(alpha: float, share: Fraction) -> float:
    """A share of a failure probability."""
    return alpha * share.numerator / share.denominator
