"""Progress of a training: a live line on a terminal, plain lines elsewhere, and MLflow where the job wants it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from smoothcert.cli.progress import PLAIN_EVERY_S
from smoothcert.cli.terminal import Terminal
from smoothcert.errors import TrackingError

if TYPE_CHECKING:
    from smoothcert.tracking.training import TrackedTraining
    from smoothcert.training.train import Training


_AGAIN_S = 60.0
"""From one try of MLflow to the next, while it is away; longer where a try itself takes long."""


class TrainingProgress:
    """A ``Watcher`` that shows loss, steps/s and the time left of a stage.

    Where MLflow is away, it says so once and training goes on; what was to be logged is kept and tried again after a
    minute or more, and at the end.

    Args:
        terminal: where to.
        training: what is shown.
        stop: set when the fit should stop.

    Attributes:
        tracked: what to say of MLflow at the end.
    """

    def __init__(self, terminal: Terminal, training: Training, stop: threading.Event) -> None:
        self.tracked: list[str] = []
        self._terminal = terminal
        self._training = training
        self._stop = stop
        self._bar = Progress(BarColumn(30), TextColumn("{task.description}"), console=terminal)
        self._live = Live(self._bar, console=terminal, refresh_per_second=4, transient=True)
        self._plain = not terminal.is_terminal
        self._run: TrackedTraining | None = None
        self._unsent: deque[Callable[[], None]] = deque()
        self._try_again_at = 0.0
        self._told = False
        self._task: TaskID | None = None
        self._steps = self._first = 0
        self._started = self._last_plain = time.monotonic()
        self._window: list[Mapping[str, float]] = []

    def __enter__(self) -> TrainingProgress:
        if not self._plain:
            self._live.start()
        if self._enabled:
            self._unsent.append(self._open_run)
            self._send()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._plain:
            self._live.stop()
        status = "FAILED" if kind is not None else "KILLED" if self.stopped else "FINISHED"
        self._track(lambda run: run.finish(status), last=True)

    @property
    def stopped(self) -> bool:
        """See ``Watcher.stopped``."""
        return self._stop.is_set()

    def begin(self, stage: str, step: int, steps: int) -> None:
        """See ``Watcher.begin``."""
        self._steps, self._first = steps, step
        self._started = self._last_plain = time.monotonic()
        self._window = []
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(stage, total=steps, completed=step)
        if step:
            self._terminal.say(f"{stage}: goes on at step {step:,} of {steps:,}")

    def step(self, stage: str, step: int, losses: Mapping[str, float]) -> None:
        """See ``Watcher.step``."""
        self._window.append(losses)
        now = time.monotonic()
        rate = (step - self._first) / max(now - self._started, 1e-6)
        left = (self._steps - step) / max(rate, 1e-9)
        text = (
            f"{stage}  step {step:,}/{self._steps:,}  loss {losses['loss']:.4f}  {rate:,.1f} steps/s  "
            f"at most {left:,.0f} s left"
        )
        if self._plain:
            if now - self._last_plain >= PLAIN_EVERY_S:
                self._last_plain = now
                self._terminal.say(text)
        elif self._task is not None:
            self._bar.update(self._task, completed=step, description=text)

    def validated(self, stage: str, step: int, figures: Mapping[str, float]) -> None:
        """See ``Watcher.validated``: MLflow gets the means of the losses since the last time, and the figures."""
        names = self._window[0] if self._window else {}
        losses = {name: sum(each[name] for each in self._window) / len(self._window) for name in names}
        self._window = []
        self._track(lambda run: run.log(stage, step, losses, figures))

    def end(self, stage: str, step: int, best_step: int) -> None:
        """See ``Watcher.end``."""
        self._terminal.say(f"{stage}: {step:,} steps; the weights of step {best_step:,} are the best")

    def _open_run(self) -> None:
        from smoothcert.tracking.training import TrackedTraining

        self._run = TrackedTraining(self._training)
        self.tracked = [self._run.where]

    @property
    def _enabled(self) -> bool:
        return self._training.job.tracking.enabled

    def _track(self, write: Callable[[TrackedTraining], None], *, last: bool = False) -> None:
        """Write to MLflow, after what could not be written before."""
        if not self._enabled:
            return

        def to_the_run() -> None:
            assert self._run is not None, "what opens it comes first"
            write(self._run)

        self._unsent.append(to_the_run)
        if last or time.monotonic() >= self._try_again_at:
            self._send(last=last)

    def _send(self, *, last: bool = False) -> None:
        began = time.monotonic()
        while self._unsent:
            try:
                self._unsent[0]()
            except TrackingError as exc:
                if last:
                    self._terminal.say(("not tracked: ", "yellow"), exc.message)
                elif not self._told:
                    self._terminal.say(("not tracked yet: ", "yellow"), f"{exc.message}; tried again later")
                self._told = True
                ended = time.monotonic()
                self._try_again_at = ended + max(_AGAIN_S, 10 * (ended - began))
                return
            self._unsent.popleft()
