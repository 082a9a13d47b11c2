"""What leaves the engine: scores of one pair, or the reason why there are none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from smoothcert.datasets import Pair
from smoothcert.engine.moments import SecondMoment
from smoothcert.engine.question import Question
from smoothcert.errors import PairError

StopReason = Literal["fixed", "decided", "budget"]
Decision = Literal["certified", "refuted", "budget"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """The certify draws of one pair, reduced to scalars.

    Attributes:
        token: what the pair came with: names the attempt at its unit.
        pair: the pair, without image bytes.
        question: what was asked, fixed before these draws.
        scores: (kept, draws) float64 in [0, 1]: (1 + <u(x+eps), direction>)/2 of the reported directions, then the
            layout's other scores.
        draws: number of certify draws used.
        pilot_draws: number of pilot draws thrown away.
        stop_reason: ``fixed`` without targets, ``decided`` when all targets were, else ``budget``.
        decisions: one per target.
        log_e_values: one per target: log of an e-value against "the target does not hold".
        spread: second moment of the features; None where it is not measured.
    """

    token: str
    pair: Pair
    question: Question
    scores: NDArray[np.float64]
    draws: int
    pilot_draws: int
    stop_reason: StopReason
    decisions: tuple[Decision, ...]
    log_e_values: tuple[float, ...]
    spread: SecondMoment | None = None

    @property
    def passes(self) -> int:
        """Noisy forward passes spent on the pair."""
        return self.pilot_draws + self.draws

    @property
    def failed(self) -> bool:
        """Never."""
        return False

    @property
    def size(self) -> int:
        """Numbers that it holds."""
        return int(self.scores.size)


@dataclass(frozen=True, slots=True)
class Failure:
    """A pair that cannot be certified, and why."""

    token: str
    pair: Pair
    error: PairError

    @property
    def passes(self) -> int:
        """Not counted."""
        return 0

    @property
    def failed(self) -> bool:
        """Always."""
        return True

    @property
    def size(self) -> int:
        """Numbers that it holds."""
        return 0


PairResult = Measurement | Failure
