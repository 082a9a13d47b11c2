"""Waiting for something outside: aloud, and not for ever.

One thread of the process looks at all waits, so that a wait costs next to nothing and every request to a store can be
one.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

log = logging.getLogger(__name__)

SAY_FIRST_S = 5.0
SAY_EVERY_S = 10.0
"""How long a wait is silent at first, and then between two lines."""
_LOOK_EVERY_S = 0.5


@dataclass(eq=False, slots=True)
class _Wait:
    """One wait that goes on."""

    for_what: str
    limit_s: float
    started: float
    say_at: float


_open: set[_Wait] = set()
_lock = threading.Lock()
_speaker: threading.Thread | None = None


@contextlib.contextmanager
def waiting_aloud(for_what: str, limit_s: float) -> Iterator[None]:
    """Say after five seconds, and then every ten, what is waited for, how long already, and when that ends.

    Of waits for the same thing, only the longest is told.

    Args:
        for_what: completes "waiting ...".
        limit_s: when whoever waits gives up, about.
    """
    global _speaker
    now = time.monotonic()
    wait = _Wait(for_what, limit_s, now, now + SAY_FIRST_S)
    with _lock:
        _open.add(wait)
        if _speaker is None:
            _speaker = threading.Thread(target=_speak, name="waiting", daemon=True)
            _speaker.start()
    try:
        yield
    finally:
        with _lock:
            _open.discard(wait)


def _speak() -> None:
    while True:
        time.sleep(min(_LOOK_EVERY_S, SAY_FIRST_S / 2.0))
        now = time.monotonic()
        longest: dict[str, _Wait] = {}
        with _lock:
            for wait in sorted(_open, key=lambda each: each.started):
                longest.setdefault(wait.for_what, wait)
        for wait in longest.values():
            if now >= wait.say_at:
                wait.say_at = now + SAY_EVERY_S
                log.warning(
                    "waiting %s: %.0f s so far, at most about %.0f s",
                    wait.for_what,
                    now - wait.started,
                    wait.limit_s,
                )
