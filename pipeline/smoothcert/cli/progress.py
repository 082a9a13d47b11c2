"""Progress of a run: a live line on a terminal, plain lines elsewhere.

How far it is, and how long it still takes, is counted in draws: pairs that are worked on together end together, and
until then their number says nothing.
"""

from __future__ import annotations

import time
from types import TracebackType

from rich import progress as bars
from rich.console import Console
from rich.live import Live

from smoothcert.runtime.progress import Progress, RateWindow

PLAIN_EVERY_S = 15.0


class ProgressLine:
    """Shows the share that is done, pairs/s and draws/s of the last two minutes, the time left, and quarantined pairs.

    Args:
        console: where to.
        pairs: pairs of the run.
        done: pairs that were committed before.
        draws_per_pair: draws that one pair takes, at most or about; what is seen takes its place.
        name: of the run, where lines of others stand between its own: then they are plain everywhere.
    """

    def __init__(
        self, console: Console, *, pairs: int, done: int, draws_per_pair: float, name: str = ""
    ) -> None:
        self._console = console
        self._pairs = pairs
        self._before = done
        self._draws_per_pair = float(draws_per_pair)
        self._seen = 0
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
        if pairs >= 20 and pairs > self._seen:
            # targets stop draws early: what pairs cost so far says more than what they may cost. Looked at when pairs
            # end, since draws of those that are worked on belong to none of them
            self._draws_per_pair, self._seen = draws / pairs, pairs
        done = min(self._before + pairs, self._pairs)
        left = max(self._pairs - self._before, 0)
        left_draws = left * self._draws_per_pair - draws
        rate = rates.draws_per_s or 0.0
        eta = f"about {_span(left_draws / rate)} left" if rate > 0 and left_draws > 0 else ""
        worked = float(done)
        if self._draws_per_pair > 0:
            worked = max(done, self._before + min(draws / self._draws_per_pair, left))
        # whole only when every pair is
        share = 1.0 if done == self._pairs else min(worked / self._pairs, 0.99)
        text = (
            f"{share:.0%}  {done:,}/{self._pairs:,} pairs  {rates.pairs_per_s or 0.0:,.1f} pairs/s  "
            f"{rate:,.0f} draws/s  {progress.quarantined:,} quarantined  {eta}"
        ).rstrip()
        if not self._plain:
            self._bar.update(self._task, completed=share * self._pairs, description=text)
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
