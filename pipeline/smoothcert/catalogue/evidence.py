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
"""(scores (n,) of one pair's draws in [0,1], level of each bound, whether n was chosen by looking) -> (size,) lower
confidence bounds. It must hold at any stopping time where n was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One column that certificates rest on.

    Attributes:
        name: what SQL functions call it.
        column: of the table ``certificates``.
        kind: ``mean``: lower confidence bound of a mean score along ``direction``. ``quantiles``: lower confidence
            bounds of the quantiles to which attacks of growing size shift the job's percentile of these scores, each
            by itself at ``level``; ``low`` where so few draws bound nothing. ``statistic``: other bounds from the
            same scores. ``known``: no draws in it, so it cannot fail. ``rival``: of the binding rival, which is found
            while certifying (engine/rival_bounds.py).
        direction: which scores; empty for known and rival.
        votes: whether each score is 0 or 1, so that an exact binomial bound is had.
        projection: whether the column holds 2 score - 1, in [-1,1], in place of a score in [0,1].
        estimate: column of the estimate that the bound may not exceed; empty for none.
        level: share of alpha at which the column's bounds stand, each of them.
        ranked: whether that level is split over the k ranks of a retrieval section too.
        null: what NULL stands for; None where nothing is known then.
        low: smallest value of the column.
        size: 0 for one number, else the length of the list.
        statistic: how to compute it, of kind ``statistic``.
        meaning: of the column, of kinds ``statistic`` and ``quantiles``; the others are documented beside their
            estimates.
        source: where it comes from.
    """

    name: str
    column: str
    kind: Literal["mean", "quantiles", "statistic", "known", "rival"]
    direction: Direction | Literal[""] = ""
    votes: bool = False
    projection: bool = False
    estimate: str = ""
    level: Fraction = Fraction(1)
    ranked: bool = False
    null: float | None = None
    low: float = 0.0
    size: int = 0
    statistic: Statistic | None = None
    meaning: str = ""
    source: str = ""

    @property
    def bounds(self) -> int:
        """How many confidence bounds a statement takes from it: each may fail at its level.

        Of quantiles it is one: that of the statement's radius; and of a cosine the smallest radius at which it is not
        kept, for which the bound of every larger radius is too low to say otherwise.
        """
        if self.kind == "known":
            return 0
        return 1 if self.kind == "quantiles" else max(1, self.size)

    @property
    def documented(self) -> bool:
        """Whether its column is made from this entry; the others stand beside their estimates."""
        return self.kind in ("statistic", "quantiles")


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
    from smoothcert.statistics import lower_bound

    thresholds = (1.0 + np.array(LARGE_RADIUS_THRESHOLDS)[:, None]) / 2.0
    above = (scores[None, :] >= thresholds).astype(np.float64)
    return lower_bound(above, level, "betting" if anytime else "clopper_pearson")


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
