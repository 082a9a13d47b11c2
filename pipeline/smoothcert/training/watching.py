"""What is told of a training while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Watcher(Protocol):
    """Hears of a training; what it raises ends it."""

    @property
    def stopped(self) -> bool:
        """Whether the fit should stop after this step: its checkpoint is written first."""

    def begin(self, stage: str, step: int, steps: int) -> None:
        """A stage begins, or goes on at a step."""

    def step(self, stage: str, step: int, losses: Mapping[str, float]) -> None:
        """A step was taken; the parts of its loss, with ``loss``, their sum."""

    def validated(self, stage: str, step: int, figures: Mapping[str, float]) -> None:
        """Held-out figures at a step."""

    def end(self, stage: str, step: int, best_step: int) -> None:
        """A stage is done; what counts are the weights of its best step."""


class Silent:
    """Hears everything and does nothing."""

    stopped = False

    def begin(self, stage: str, step: int, steps: int) -> None:
        """See ``Watcher.begin``."""

    def step(self, stage: str, step: int, losses: Mapping[str, float]) -> None:
        """See ``Watcher.step``."""

    def validated(self, stage: str, step: int, figures: Mapping[str, float]) -> None:
        """See ``Watcher.validated``."""

    def end(self, stage: str, step: int, best_step: int) -> None:
        """See ``Watcher.end``."""
