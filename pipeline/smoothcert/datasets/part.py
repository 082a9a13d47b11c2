"""Which pairs a part of a data set is: some set aside, spread evenly over all of them, or the rest; or a sample.

Positions count all pairs in the order of the source. What is set aside comes in at most ``BLOCKS`` runs of consecutive
pairs, so that data sorted by class are met throughout, and the rest stays in few pieces.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from smoothcert.errors import JobError
from smoothcert.job.data import PartSection, SampleSection

BLOCKS = 32
Ranges = Sequence[tuple[int, int]]
"""[start, stop) by growing start, not touching each other."""


def ranges_of(part: PartSection, pairs: int) -> Ranges:
    """The positions of a part.

    Args:
        part: which one.
        pairs: how many pairs there are.

    Raises:
        JobError: more than half would be set aside.
    """
    if part.set_aside > pairs // 2:
        raise JobError(
            f"data.part.set_aside={part.set_aside} is more than half of the {pairs:,} pairs",
            remedy="set fewer pairs aside: what is chosen on them is certified on the others",
        )
    aside = list(_set_aside(part.set_aside, pairs))
    if part.use == "set_aside":
        count = part.first or part.set_aside
        return _join([aside[i * part.set_aside // count] for i in range(count)])
    taken = _join(aside)
    starts = [0, *(stop for _, stop in taken)]
    stops = [*(start for start, _ in taken), pairs]
    return [(start, stop) for start, stop in zip(starts, stops, strict=True) if start < stop]


def ranges_of_sample(sample: SampleSection, pairs: int) -> Ranges:
    """The positions of a sample: every set of so many pairs is equally likely over seeds."""
    chosen = random.Random(sample.seed).sample(range(pairs), min(sample.pairs, pairs))
    return _join(sorted(chosen))


def overlap(ranges: Ranges, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """What of [start, stop) is in some ranges."""
    for low, high in ranges:
        if low < stop and high > start:
            yield max(low, start), min(high, stop)


def _set_aside(count: int, pairs: int) -> Iterator[int]:
    blocks = min(BLOCKS, count)
    for block in range(blocks):
        begins = block * pairs // blocks
        yield from range(begins, begins + (block + 1) * count // blocks - block * count // blocks)


def _join(positions: Sequence[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for position in positions:
        if found and found[-1][1] == position:
            found[-1] = (found[-1][0], position + 1)
        else:
            found.append((position, position + 1))
    return found
