"""Which numbers of draws and failure probabilities can have given the largest radius of a log.

If all N draws agree, the exact lower bound of the share is alpha^(1/N): no radius is larger than
sigma Phi^-1(alpha^(1/N)) (docs/theory.md T9). So from the largest radius follows ln(1/alpha)/N.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import log_ndtr

from smoothcert.certificates import vote_reach

USUAL = tuple(
    (draws, alpha) for alpha in (0.001, 0.0005, 0.01) for draws in (100_000, 10_000, 1_000, 50_000, 1_000_000)
)
"""What papers use, the most usual first: (draws, alpha)."""
_SLACK = 1e-9


@dataclass(frozen=True, slots=True)
class Reach:
    """The largest radius of a log.

    Attributes:
        low, high: between which it was before it was printed, in units of sigma.
        rate: ln(1/alpha)/N that would give ``low``, if all draws agreed: a log with a larger rate cannot have it.
        fits: usual (draws, alpha) whose reach lies between ``low`` and ``high``.
    """

    low: float
    high: float
    rate: float
    fits: tuple[tuple[int, float], ...]

    def allows(self, draws: int, alpha: float) -> bool:
        """Whether so many draws can have given it."""
        return float(vote_reach(draws, alpha, 1.0)) >= self.low - _SLACK


def find_reach(low: float, high: float) -> Reach:
    """The reach of a radius between ``low`` and ``high``, in units of sigma."""
    fits = tuple(
        (draws, alpha)
        for draws, alpha in USUAL
        if low - _SLACK <= float(vote_reach(draws, alpha, 1.0)) <= high + _SLACK
    )
    # -ln Phi(x): exact where Phi(x) is nearly 1
    return Reach(low, high, -float(log_ndtr(low)) if math.isfinite(low) else 0.0, fits)
