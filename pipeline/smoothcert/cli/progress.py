"""Progress of a run: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich import progress as bars
from rich.console import Console
from rich.live import Live

from smoothcert.runtime.progress import Progress, RateWindow

PLAIN_EVERY_S = 15.0


class ProgressLine:
    """Shows pairs/s and draws/s of the last two minutes, the time left estimated from draws, and the quarantined count.

    Args:
        console: where to.
        pairs: pairs of the run.
        done: pairs that were committed before.
        draws_per_pair: draws that one pair takes at most.
        name: of the run, where lines of others stand between its own: then they are plain everywhere.
    """

    def __init__(
        self, console: Console, *, pairs: int, done: int, draws_per_pair: float, name: str = ""
    ) -> None:
        self._console = console
        self._pairs = pairs
        self._before = done
        self._draws_per_pair = float(draws_per_pair)
        self._last_plain = time.monotonic()
        self._rates = RateWindow()
        self._rates.note(Progress(0, 0, 0), self._last_plain)
        self._bar = bars.Progress(bars.BarColumn(30), bars.TextColumn("{task.description}"), console=console)
        self._task = self._bar.add_task("starting", total=max(pairs, 1), completed=done)
        self._live = Live(self._bar, console=console, refresh_per_second=4, transient=True)
        self._name = f"{name}: " if name else ""
        self._plain = bool(name) or not console.is_terminal

    def __enter__(self) -> ProgressLine:
        if not self._plain:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._plain:
            self._live.stop()

    def update(self, progress: Progress) -> None:
        """New counts of this session (not counting what was committed before)."""
        now = time.monotonic()
        draws, pairs = progress.draws, progress.pairs
        rates = self._rates.note(progress, now)
        if pairs >= 20:
            # targets stop draws early: what pairs cost so far says more than what they may cost
            self._draws_per_pair = draws / pairs
        done = min(self._before + pairs, self._pairs)
        left_draws = max(self._pairs - self._before, 0) * self._draws_per_pair - draws
        rate = rates.draws_per_s or 0.0
        eta = f"about {_span(left_draws / rate)} left" if rate > 0 and left_draws > 0 else ""
        text = (
            f"{done:,}/{self._pairs:,} pairs  {rates.pairs_per_s or 0.0:,.1f} pairs/s  {rate:,.0f} draws/s  "
            f"{progress.quarantined:,} quarantined  {eta}"
        ).rstrip()
        if not self._plain:
            self._bar.update(self._task, completed=done, description=text)
        elif now - self._last_plain >= PLAIN_EVERY_S:
            self._last_plain = now
            self._console.print(self._name + text, highlight=False, soft_wrap=True)


def _span(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
