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

Direction = Literal["pilot", "clean", "caption"]
"""Fixed unit vectors of which each draw gives a score (1 + <u(x+eps), direction>)/2, kept for every pair."""

Statistic = Callable[["FloatArray", float, bool], "FloatArray"]
"""(scores (n,) of one pair's draws in [0,1], level of each bound, whether n was chosen by looking) -> (size,) lower
confidence bounds. It must hold at any stopping time where n was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One column that certificates rest on.

    Attributes:
        name: what SQL functions call it.
        column: of the table ``certificates``.
        kind: ``mean``: lower confidence bound of a mean score along ``direction``. ``statistic``: other bounds from the
            same scores. ``known``: no draws in it, so it cannot fail. ``rival``: of the binding rival, which is found
            while certifying (engine/rival_bounds.py).
        direction: which scores; empty for known and rival.
        projection: whether the column holds 2 score - 1, in [-1,1], in place of a score in [0,1].
        estimate: column of the estimate that the bound may not exceed; empty for none.
        level: share of alpha at which the column's bounds stand, each of them.
        ranked: whether that level is split over the k ranks of a retrieval section too.
        null: what NULL stands for; None where nothing is known then.
        low: smallest value of the column.
        size: 0 for one number, else the length of the list.
        statistic: how to compute it, of kind ``statistic``.
        meaning: of the column, of kind ``statistic``; the others are documented beside their estimates.
        source: where it comes from.
    """

    name: str
    column: str
    kind: Literal["mean", "statistic", "known", "rival"]
    direction: Direction | Literal[""] = ""
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
        """How many confidence bounds it is: each may fail at its level."""
        return 0 if self.kind == "known" else max(1, self.size)


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


def part_of(alpha: float, share: Fraction) -> float:
    """A share of a failure probability."""
    return alpha * share.numerator / share.denominator
