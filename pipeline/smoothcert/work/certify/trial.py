"""A look before choosing: a few pairs of the job, and how many draws each target takes on them, under every rule.

What is tried is drawn and decided by the engine itself, one target at a time, so a certificate that may be a target is
tried wherever it says the same as the job's. Nothing is written. Draws come from another seed than the job's: whatever
is chosen after this look, the draws that certify have no part in the choice (docs/theory.md section 4.10).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smoothcert.catalogue.certificate import Certificate
from smoothcert.catalogue.certificates import CATALOGUE, of_name
from smoothcert.datasets import Pair, Source, UnitSpec
from smoothcert.encoders import Encoder
from smoothcert.engine import DecodeAhead, Engine, Measurement, Texts
from smoothcert.job import Job, Target

MOST_PAIRS = 32
"""More are never tried."""
LEAST_PAIRS = 4
"""Fewer say nothing."""
_OTHER_SEED = 1 << 62
"""Bit in which the seed of a trial differs from the job's."""


@dataclass(frozen=True)
class Trial:
    """How one target, or several together, went on a few pairs.

    Attributes:
        targets: the targets; a pair is decided when all are.
        draws: (pairs,) fresh draws until then, rounded up to whole chunks; all of them where it was not.
        certified: (pairs,) whether every target was certified.
        decided: (pairs,) whether every target was certified or refuted.
    """

    targets: tuple[Target, ...]
    draws: NDArray[np.int64]
    certified: NDArray[np.bool_]
    decided: NDArray[np.bool_]

    def decided_after(self, draws: int) -> float:
        """Share of the pairs that were decided within so many fresh draws."""
        return float(np.mean(self.decided & (self.draws <= draws)))

    @property
    def draws_each(self) -> float:
        """Fresh draws for each certificate, those of all other pairs included; infinite where there is none."""
        found = int(self.certified.sum())
        return float(self.draws.sum()) / found if found else float("inf")

    def enough(self, share: float = 0.95) -> int:
        """Fewest fresh draws that decide such a share of what was decided at all; 0 where nothing was."""
        spent = np.sort(self.draws[self.decided])
        return int(spent[int(np.ceil(share * len(spent))) - 1]) if len(spent) else 0


def rivals_of(target: Target) -> Iterator[Target]:
    """The same statement under other rules: certificates of the same quantity, or of the same by another rule."""
    own = of_name(target.certificate)
    for other in CATALOGUE:
        if other.target and other.name != own.name and _says_the_same(own, other):
            if (target.cosine is None) == (other.bound is None):
                yield target.model_copy(update={"certificate": other.name})


def _says_the_same(one: Certificate, other: Certificate) -> bool:
    if one.quantity == other.quantity or one.quantity.of == other.quantity.of != "":
        return True
    section = one.quantity.section
    both_radii = one.radius is not None and other.radius is not None
    return both_radii and section != "" and section == other.quantity.section


def choose_pairs(source: Source, units: Sequence[UnitSpec], count: int) -> list[Pair]:
    """Readable pairs spread evenly over the data, the same ones every time."""
    spread = [units[i] for i in np.unique(np.linspace(0, len(units) - 1, min(count, len(units)), dtype=int))]
    each = -(-count // len(spread))
    found = []
    for unit in spread:
        places = np.unique(np.linspace(unit.start, unit.stop - 1, min(each, len(unit)), dtype=int))
        for place in places:
            found += [
                pair for pair in source.read(unit.part(int(place), int(place) + 1)) if pair.error is None
            ]
    return found[:count]


def try_targets(
    job: Job, encoder: Encoder, texts: Texts, pairs: Sequence[Pair], targets: tuple[Target, ...]
) -> Trial:
    """Draw until some targets are decided together, at most ``certify.max_draws`` a pair.

    Pairs that fail are left out, as they are of every figure.
    """
    seed = job.certify.seed ^ _OTHER_SEED
    certify = job.certify.model_copy(update={"targets": targets, "seed": seed})
    section = job.encoder
    engine = Engine(
        encoder, certify, texts, slots=section.slots, chunk=section.chunk, threads=section.threads
    )
    feed = DecodeAhead(
        (("trial", pair) for pair in pairs), encoder, depth=section.slots, max_pixels=job.data.max_pixels
    )
    try:
        found = [result for result in engine.run(feed) if isinstance(result, Measurement)]
    finally:
        feed.close()
        engine.close()
    return Trial(
        targets,
        np.array([m.draws for m in found], dtype=np.int64),
        np.array([all(d == "certified" for d in m.decisions) for m in found], dtype=bool),
        np.array([m.stop_reason == "decided" for m in found], dtype=bool),
    )
