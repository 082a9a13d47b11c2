"""Word between the driver of a training and the first of its workers: what is told, how it ended, and when to stop."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import ray

from smoothcert.errors import SmoothcertError
from smoothcert.training.train import Trained
from smoothcert.training.watching import Watcher

Word = tuple[str, tuple[Any, ...]]
"""A method of ``Watcher`` and its arguments."""
_EVERY_S = 0.2


class Relay:
    """An actor in the driver's care, between the two: each calls it, and neither waits for the other."""

    def __init__(self) -> None:
        self._words: list[Word] = []
        self._stop = False
        self._end: Trained | SmoothcertError | None = None

    def tell(self, words: list[Word]) -> bool:
        """From the first worker: what it has to say; returns whether the driver wants it to stop."""
        self._words += words
        return self._stop

    def conclude(self, end: Trained | SmoothcertError) -> None:
        """From a worker: what came of the training; only the first such word counts."""
        self._end = self._end or end

    def hear(self, stop: bool) -> tuple[list[Word], Trained | SmoothcertError | None]:
        """From the driver: whether to stop; returns what was told since the last time, and the end if there is one."""
        self._stop = self._stop or stop
        words, self._words = self._words, []
        return words, self._end


class RelayedWatcher:
    """The ``Watcher`` of the first worker, which lets the driver's hear of everything; it never waits for a step.

    Args:
        relay: the actor.
    """

    def __init__(self, relay: Any) -> None:
        self._relay = relay
        self._waiting: list[Word] = []
        self._call: Any = None
        self._called = 0.0
        self._stop = False

    @property
    def stopped(self) -> bool:
        """See ``Watcher.stopped``: as far as the driver has said."""
        self._send()
        return self._stop

    def begin(self, stage: str, step: int, steps: int) -> None:
        """See ``Watcher.begin``."""
        self._waiting.append(("begin", (stage, step, steps)))
        self._send()

    def step(self, stage: str, step: int, losses: Mapping[str, float]) -> None:
        """See ``Watcher.step``."""
        self._waiting.append(("step", (stage, step, dict(losses))))

    def validated(self, stage: str, step: int, figures: Mapping[str, float]) -> None:
        """See ``Watcher.validated``."""
        self._waiting.append(("validated", (stage, step, dict(figures))))

    def end(self, stage: str, step: int, best_step: int) -> None:
        """See ``Watcher.end``."""
        self._waiting.append(("end", (stage, step, best_step)))

    def flush(self) -> None:
        """Return when the relay has heard everything."""
        if self._call is not None:
            self._stop, self._call = ray.get(self._call), None
        self._stop = ray.get(self._relay.tell.remote(self._waiting))
        self._waiting = []

    def _send(self) -> None:
        """One call at a time and a few a second: words wait for each other, in order."""
        now = time.monotonic()
        if now - self._called < _EVERY_S:
            return
        if self._call is not None:
            if not ray.wait([self._call], timeout=0)[0]:
                return
            self._stop = ray.get(self._call)
        self._call, self._called = self._relay.tell.remote(self._waiting), now
        self._waiting = []


def pass_on(words: list[Word], watcher: Watcher) -> None:
    """Let the driver's watcher hear what was told."""
    for method, arguments in words:
        getattr(watcher, method)(*arguments)
