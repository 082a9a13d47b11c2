"""A CPU's cores shared out to threads that compute beside each other.

Threads inside an operation wait for each other at its end, and small operations are not divided at all; whole pieces of
work beside each other do not wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from threading import Barrier
from typing import TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")

_MOST_AT_ONCE = 4
"""Pieces at once: each holds memory of its own."""


def start_threads(count: int, name: str, cores: int = 1) -> ThreadPoolExecutor:
    """Threads whose operations take ``cores`` cores each.

    What a thread asks of torch also holds for all that begin later. So these begin at once, and what this thread has
    is asked for again: or whatever comes after them in this process (attacks, another run's lanes) had one core too.
    """

    def take() -> None:
        torch.set_num_threads(cores)
        torch.get_num_threads()  # a thread takes the number up when it first needs it: now

    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, name, initializer=take)
    begun = Barrier(count)
    for waiting in [pool.submit(begun.wait) for _ in range(count)]:
        waiting.result()
    torch.set_num_threads(before)
    return pool


class Crew:
    """Does pieces of work beside each other: at most four at once, all of torch's cores shared out among them.

    Where torch has one core, there is one piece after the other. Threads begin with the first work.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    @property
    def size(self) -> int:
        """Pieces that go on at once."""
        return min(torch.get_num_threads(), _MOST_AT_ONCE)

    def work(self, do: Callable[[Piece], Result], pieces: Sequence[Piece]) -> list[Result]:
        """The results, in the order of the pieces; an error is raised when nothing is at work any more."""
        if min(self.size, len(pieces)) < 2:
            return [do(piece) for piece in pieces]
        if self._pool is None:
            self._pool = start_threads(self.size, "crew", torch.get_num_threads() // self.size)
        given = [self._pool.submit(do, piece) for piece in pieces]
        wait(given, return_when=FIRST_EXCEPTION)
        begun = [each for each in given if not each.cancel()]
        wait(begun)
        return [each.result() for each in begun]

    def close(self) -> None:
        """Let the threads go."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
