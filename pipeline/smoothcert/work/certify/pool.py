"""The retrieval pool: a fixed sample of captions from the same source."""

from __future__ import annotations

import hashlib
import heapq

from smoothcert.datasets import Source
from smoothcert.errors import JobError
from smoothcert.job import RetrievalSection


def draw_pool(source: Source, retrieval: RetrievalSection, seed: int) -> tuple[str, ...]:
    """``candidates`` distinct captions, chosen by keyed hash: the same for any order of reading.

    Memory is proportional to the pool, not to the source.

    Raises:
        JobError: the source has fewer distinct captions than the pool needs.
    """
    kept: dict[str, int] = {}
    worst: list[tuple[int, str]] = []  # a max-heap by rank: the first to go when a better one comes
    for _, captions in source.captions():
        for caption in captions:
            if caption in kept:
                continue
            rank = int.from_bytes(
                hashlib.blake2b(f"{seed}\x1f{caption}".encode(), digest_size=8).digest(), "big"
            )
            if len(kept) < retrieval.candidates:
                kept[caption] = rank
                heapq.heappush(worst, (-rank, caption))
            elif rank < -worst[0][0]:
                _, dropped = heapq.heapreplace(worst, (-rank, caption))
                del kept[dropped]
                kept[caption] = rank
    if len(kept) < retrieval.candidates:
        raise JobError(
            f"retrieval.candidates={retrieval.candidates}, but the data has only {len(kept)} distinct captions",
            remedy=f"set retrieval.candidates to at most {len(kept)}",
        )
    return tuple(sorted(kept, key=kept.__getitem__))
