"""What workers have done and what they hold, in numbers that add up; and the rates that follow.

Everything that tells of a run's progress rests on these: the terminal, the event logs, ``smoothcert status``, and the
metrics (metrics.py).
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

WINDOW_S = 120.0
"""Rates are taken over so many seconds before now."""
_APART_S = 1.0
"""Between two samples that are kept."""


@dataclass(frozen=True, slots=True)
class SessionLoad:
    """How busy sessions are. Sums of several sessions are those of their devices together.

    Attributes:
        busy_s: seconds that devices have worked.
        open_s: seconds that devices have been there for it.
        units_in_flight: units given to them and not committed.
        pairs_waiting: pairs that were read ahead and wait for the device.
        outcomes_waiting: pairs that were measured and have no row yet.
        workers: how many they are.
    """

    busy_s: float = 0.0
    open_s: float = 0.0
    units_in_flight: int = 0
    pairs_waiting: int = 0
    outcomes_waiting: int = 0
    workers: int = 0

    def __add__(self, other: SessionLoad) -> SessionLoad:
        """Of both together."""
        return SessionLoad(*(getattr(self, n) + getattr(other, n) for n in self.__dataclass_fields__))


@dataclass(frozen=True, slots=True)
class Progress:
    """Counters of one session or of several. Equal counters mean that nothing was done, however busy it looks.

    Attributes:
        draws: noisy forward passes.
        pairs: pairs with an outcome.
        quarantined: those among them that claim nothing.
        units: units written.
        load: how busy the devices are.
    """

    draws: int
    pairs: int
    quarantined: int
    units: int = 0
    load: SessionLoad = field(default=SessionLoad(), compare=False)

    def __add__(self, other: Progress) -> Progress:
        """Of both together."""
        return Progress(
            self.draws + other.draws,
            self.pairs + other.pairs,
            self.quarantined + other.quarantined,
            self.units + other.units,
            self.load + other.load,
        )

    def ended(self) -> Progress:
        """What stays of it when its session has ended: what was done, and nothing in flight."""
        return Progress(
            self.draws,
            self.pairs,
            self.quarantined,
            self.units,
            SessionLoad(self.load.busy_s, self.load.open_s),
        )


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast it goes; None while it is not known.

    Attributes:
        draws_per_s, pairs_per_s: over the last ``WINDOW_S``.
        busy_share: of the devices' time, in [0, 1].
    """

    draws_per_s: float | None = None
    pairs_per_s: float | None = None
    busy_share: float | None = None


class RateWindow:
    """Takes samples of a growing ``Progress``, and keeps those of the last ``window_s`` seconds."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._samples: deque[tuple[float, Progress]] = deque()

    def note(self, progress: Progress, at: float | None = None) -> Rates:
        """Take a sample, and say how fast it went from the oldest one that is kept.

        Args:
            progress: now.
            at: when, by a clock that only goes forward; default now.
        """
        now = time.monotonic() if at is None else at
        rates = self._since(progress, now)
        if not self._samples or now - self._samples[-1][0] >= _APART_S:
            self._samples.append((now, progress))
        while len(self._samples) > 1 and self._samples[1][0] <= now - self._window_s:
            self._samples.popleft()
        return rates

    def _since(self, progress: Progress, now: float) -> Rates:
        if not self._samples or now <= self._samples[0][0]:
            return Rates()
        at, before = self._samples[0]
        seconds = now - at
        opened = progress.load.open_s - before.load.open_s
        busy = progress.load.busy_s - before.load.busy_s
        return Rates(
            max(0.0, (progress.draws - before.draws) / seconds),
            max(0.0, (progress.pairs - before.pairs) / seconds),
            min(1.0, max(0.0, busy / opened)) if opened > 0 else None,
        )
