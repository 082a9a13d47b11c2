"""Certified answers by vote (docs/theory.md T9): pilot draws choose a class, fresh draws bound its probability.

The deployed system answers with the class that most noisy images get. If the bound p is above 1/2, no attack of at most
sigma Phi^-1(p) changes that class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smoothcert.answerers.metrics import METRICS, contained_match
from smoothcert.answerers.normalising import normalise
from smoothcert.certificates.vote import PERCENTILE_SHIFTS, vote_radius
from smoothcert.job.answer import VoteSection
from smoothcert.statistics import Method, lower_bound, percentile_bound

RIGHT, WRONG = "right", "wrong"


@dataclass(frozen=True, slots=True)
class VoteResult:
    """What came of the vote on one question.

    Attributes:
        answer: the class that was chosen on pilot draws; None where no pilot draw voted.
        draws: fresh draws that count.
        votes: those among them for the class.
        share_lcb: lower bound of the class's probability.
        radius: certified l2 radius; None where nothing is certified.
        decision: ``certified``, ``refuted`` or ``budget`` at the radius of the job; None without one.
        method: of the bound.
        score: mean of the metric over the draws; None without one.
        score_lcb: lower bound of its mean under noise, by betting.
        scores: the metric of each draw, in order.
        score_quantiles: lower bounds of the quantiles at ``PERCENTILE_SHIFTS``, 0 for nothing; None without a
            percentile.
        wording: how the first pilot draw of that class put it, before normalisation; None where there is none.
    """

    answer: str | None
    draws: int
    votes: int | None
    share_lcb: float | None
    radius: float | None
    decision: str | None
    method: str
    score: float | None = None
    score_lcb: float | None = None
    scores: tuple[float, ...] | None = None
    score_quantiles: tuple[float, ...] | None = None
    wording: str | None = None


def class_of(text: str, classes: str, references: Sequence[str]) -> str | None:
    """The class of an answer: its words after normalisation, or whether it holds a reference; None: no vote."""
    if classes == "right":
        if not references:
            return None
        return RIGHT if contained_match(text, references) else WRONG
    return normalise(text) or None


class Vote:
    """The vote on one question: first pilot answers, then fresh ones in order, until it is closed.

    With a radius the bound holds at every moment (betting), and the vote closes at the first draw where it decides
    about the radius: how draws come in batches changes nothing. Without one it closes at exactly ``max_draws``, with
    the exact binomial bound. Either way the bound fails with probability at most alpha.

    Args:
        section: of the job.
        references: what people answered.
        sigma: of the noise.
        alpha: failure probability of the bound.
        alpha_futility: probability of giving up on a radius that does hold.
        percentile: which percentile of scores is certified; None for none.
    """

    def __init__(
        self,
        section: VoteSection,
        references: Sequence[str],
        *,
        sigma: float,
        alpha: float,
        alpha_futility: float,
        percentile: float | None = None,
    ) -> None:
        self._section, self._references = section, tuple(references)
        self._sigma, self._alpha, self._futility = sigma, alpha, alpha_futility
        self._percentile = percentile
        self.answer: str | None = None
        self._wording: str | None = None
        self._hits: list[bool] = []
        self._scores: list[float] = []
        self._result: VoteResult | None = None

    def class_of(self, text: str) -> str | None:
        """The class of an answer; None: no vote."""
        return class_of(text, self._section.classes, self._references)

    def choose(self, answers: Sequence[str]) -> None:
        """Fix the class to certify: the one that most pilot answers are of, the first of several."""
        counts = Counter(found for text in answers if (found := self.class_of(text)) is not None)
        if not counts:
            self._result = VoteResult(None, 0, None, None, None, None, self._method)
            return
        self.answer = max(counts, key=lambda name: counts[name])
        self._wording = next(text for text in answers if self.class_of(text) == self.answer)

    @property
    def closed(self) -> bool:
        """Whether further draws would change nothing."""
        return self._result is not None

    @property
    def result(self) -> VoteResult:
        """What came of it, once it is closed."""
        assert self._result is not None, "the vote goes on"
        return self._result

    @property
    def wanted(self) -> int:
        """Draws that it may still take."""
        return 0 if self.closed else self._section.max_draws - len(self._hits)

    def add(self, answers: Sequence[str]) -> None:
        """Count the next fresh answers, in order; those behind the one that closes the vote are dropped."""
        if self.closed:
            return
        before, most = len(self._hits), self._section.max_draws
        counted = answers[: most - before]
        self._hits += [self.class_of(text) == self.answer for text in counted]
        if self._section.score is not None and self._references:
            metric = METRICS[self._section.score]
            self._scores += [float(metric(text, self._references)) for text in counted]
        if self._section.radius is not None:
            self._decide(before, self._section.radius)
        if not self.closed and len(self._hits) >= most:
            self._close(most, self._bound(most), None if self._section.radius is None else "budget")

    @property
    def _method(self) -> Method:
        return "clopper_pearson" if self._section.radius is None else "betting"

    def _bound(self, draws: int) -> float:
        hits = np.asarray(self._hits[:draws], dtype=np.float64)
        return float(lower_bound(hits, self._alpha, self._method))

    def _decide(self, before: int, radius: float) -> None:
        """Close the vote at the first new draw where its bounds decide about the radius."""
        hits = np.asarray(self._hits, dtype=np.float64)
        moments = np.arange(before + 1, len(hits) + 1)
        rows = np.broadcast_to(hits, (len(moments), len(hits)))
        lower = lower_bound(rows, self._alpha, "betting", counts=moments)
        upper = 1.0 - lower_bound(1.0 - rows, self._futility, "betting", counts=moments)
        reached = vote_radius(lower, self._sigma) >= radius
        hopeless = ~(vote_radius(upper, self._sigma) >= radius)
        for place, moment in enumerate(moments.tolist()):
            if reached[place] or hopeless[place]:
                decision = "certified" if reached[place] else "refuted"
                self._close(moment, float(lower[place]), decision)
                return

    def _close(self, draws: int, share_lcb: float, decision: str | None) -> None:
        del self._hits[draws:]
        del self._scores[draws:]
        radius = float(vote_radius(share_lcb, self._sigma))
        scores = np.asarray(self._scores, dtype=np.float64)
        self._result = VoteResult(
            self.answer,
            draws,
            sum(self._hits),
            share_lcb,
            None if np.isnan(radius) else radius,
            decision,
            self._method,
            float(scores.mean()) if len(scores) else None,
            # betting holds whenever the vote is closed, for whatever reason
            float(lower_bound(scores, self._alpha, "betting")) if len(scores) else None,
            tuple(self._scores) if len(scores) else None,
            self._quantiles(scores),
            wording=self._wording,
        )

    def _quantiles(self, scores: NDArray[np.float64]) -> tuple[float, ...] | None:
        """By order statistics: exact at a number of draws fixed beforehand, else valid at every one."""
        if self._percentile is None or not len(scores):
            return None
        bounds = percentile_bound(
            scores,
            PERCENTILE_SHIFTS,
            1.0,
            self._alpha,
            percentile=self._percentile,
            anytime=self._section.radius is not None,
        )
        return tuple(np.where(np.isnan(bounds), 0.0, bounds).tolist())
