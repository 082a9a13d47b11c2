"""What one job measures for every pair: a fixed set of directions and other scores, and fixed tests on them.

The number of directions and tests is the same for all pairs of a job, so that batches keep their shape; which
vectors they are is decided for each pair on its pilot draws (``question.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from smoothcert.catalogue.certificates import of_name
from smoothcert.engine.thresholds import percentile_cut
from smoothcert.job import CertifySection, Target

PILOT, CLEAN, CAPTION = 0, 1, 2
_FIRST = {"pilot": PILOT, "clean": CLEAN, "caption": CAPTION}
"""Where the scores of the first directions stand."""


@dataclass(frozen=True)
class TargetTests:
    """The tests that decide one target.

    The target is certified when ``must`` holds entirely and at most ``allowed`` of ``rivals`` are not certified.
    For a prediction (``allowed`` = 0) every test runs at the full alpha: the claim is false only if the test of
    one rival, fixed before the draws, errs. For rank at most k, k rivals would have to err together with one of
    them deciding, so each test runs at alpha / k (``allowed`` = k - 1).
    """

    target: Target
    must: tuple[int, ...]
    rivals: tuple[int, ...] = ()
    allowed: int = 0


@dataclass(frozen=True)
class Layout:
    """Positions of directions and tests.

    Directions, in order: pilot, clean feature, caption (if any), class rivals, pool rivals; then one for each
    test that needs its own. Behind their scores stand the ``others`` of each draw, which are no projections.

    Attributes:
        caption: whether a caption direction exists.
        class_rivals: number of rival classes measured directly.
        pool_rivals: number of rival captions measured directly.
        others: names of scores that are no projections; each draw's are kept for the row's bounds.
        reported: how many directions have their draws kept for the row's bounds.
        directions: how many there are in all.
        test_direction: for each test the direction it looks at, or a position behind them.
        test_cut: for each test of a percentile the score from which on a draw counts as 1, below as 0; else NaN.
        targets: the tests of each target, in the job's order.
    """

    caption: bool
    class_rivals: int
    pool_rivals: int
    others: tuple[str, ...]
    reported: int
    directions: int
    test_direction: tuple[int, ...]
    test_cut: tuple[float, ...]
    targets: tuple[TargetTests, ...]

    @property
    def first_class_rival(self) -> int:
        """Position of the first rival class."""
        return CAPTION + int(self.caption)

    @property
    def first_pool_rival(self) -> int:
        """Position of the first rival caption."""
        return self.first_class_rival + self.class_rivals

    @property
    def kept(self) -> int:
        """How many scores of each draw are kept: the reported directions', then the others."""
        return self.reported + len(self.others)

    def has(self, name: str) -> bool:
        """Whether a score that the catalogue names is measured."""
        return name in self.others or (name in _FIRST and (name != "caption" or self.caption))

    def position(self, name: str) -> int:
        """Where a score that the catalogue names stands among those that are kept."""
        return self.reported + self.others.index(name) if name in self.others else _FIRST[name]


def plan_layout(
    certify: CertifySection, *, classes: int, pool: int, captions: bool, retrieval_k: int
) -> Layout:
    """The layout of a job with so many classes and retrieval candidates."""
    class_rivals = min(certify.rivals, classes - 1) if classes else 0
    pool_rivals = min(max(certify.rivals, retrieval_k), pool) if pool else 0
    reported = CAPTION + int(captions) + class_rivals + pool_rivals
    others = ("class_margin", "class_vote") * bool(class_rivals) + ("retrieval_vote",) * bool(pool_rivals)
    others += ("class_rest",) * (classes - 1 > class_rivals) + ("retrieval_rest",) * (pool > pool_rivals)
    directions = reported
    test_direction: list[int | str] = []
    test_cut: list[float] = []
    targets: list[TargetTests] = []

    def test(direction: int | str, cut: float = math.nan) -> int:
        test_direction.append(direction)
        test_cut.append(cut)
        return len(test_direction) - 1

    def own_direction() -> int:
        nonlocal directions
        directions += 1
        return directions - 1

    def rest(name: str) -> int:
        """The test of all rivals without a direction; where there are none it is trivial, whatever it looks at."""
        return test(name if name in others else PILOT)

    for target in certify.targets:
        certificate = of_name(target.certificate)
        mean, quantile = certificate.single_mean, certificate.single_quantile
        if mean is not None and target.certificate != "fcsb":
            name = mean.direction
            targets.append(TargetTests(target, (test(_FIRST.get(name, name)),)))
            continue
        if quantile is not None:
            name, cut = quantile.direction, percentile_cut(target.cosine or 0.0)
            targets.append(TargetTests(target, (test(_FIRST.get(name, name), cut),)))
            continue
        match target.certificate:
            case "fcsb" | "caption":
                targets.append(TargetTests(target, (test(own_direction()),)))
            case "class":
                rivals = tuple(test(own_direction()) for _ in range(class_rivals))
                targets.append(TargetTests(target, (rest("class_rest"), *rivals)))
            case "retrieval":
                rivals = tuple(test(own_direction()) for _ in range(pool_rivals))
                targets.append(TargetTests(target, (rest("retrieval_rest"),), rivals, retrieval_k - 1))
    # the others stand behind the directions, of which there are as many as now
    tested = tuple(
        each if isinstance(each, int) else directions + others.index(each) for each in test_direction
    )
    return Layout(
        captions,
        class_rivals,
        pool_rivals,
        others,
        reported,
        directions,
        tested,
        tuple(test_cut),
        tuple(targets),
    )
