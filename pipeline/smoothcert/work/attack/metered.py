"""A subject that counts what it is asked, so that a worker in the middle of an attack can show that it lives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from smoothcert.attacks import Subject
from smoothcert.attacks.noise import NoiseKey
from smoothcert.attacks.subjects import RowLoss
from smoothcert.engine.busy import BusyTime
from smoothcert.engine.cores import Crew
from smoothcert.errors import ExecutorError

Answer = TypeVar("Answer")


class Meter:
    """Images put through the encoder so far; once stopped, the next count raises.

    Args:
        device: where the encoder is.

    Attributes:
        images: how many.
        busy: the time that the device took for them.
    """

    def __init__(self, device: torch.device) -> None:
        self.images = 0
        self.busy = BusyTime(device)
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    def stop(self) -> None:
        """End the work at its next query."""
        self._stopped.set()

    def count(self, images: int) -> None:
        """Note some images.

        Raises:
            ExecutorError: the work is to stop.
        """
        if self._stopped.is_set():
            raise ExecutorError("the worker was asked to stop")
        with self._lock:
            self.images += images


class MeteredSubject(Subject):
    """Another subject, asked in groups that fit one forward pass and counted after each.

    Args:
        inner: the subject.
        meter: what counts.
        crew: where groups are asked beside each other; None: one after the other.
    """

    def __init__(self, inner: Subject, meter: Meter, crew: Crew | None = None) -> None:
        super().__init__(
            inner.encoder, name=inner.name, eot_draws=inner.eot_draws, sigma=inner.sigma, chunk=inner.chunk
        )
        self._inner = inner
        self._meter = meter
        self._crew = crew

    def features(self, images: torch.Tensor, keys: Sequence[NoiseKey]) -> torch.Tensor:
        """See ``Subject.features``."""
        if not len(images):
            return self._inner.features(images, keys)

        def ask(group: slice) -> torch.Tensor:
            part = self._inner.features(images[group], keys[group])
            self._meter.count(len(part) * self.eot_draws)
            return part

        return torch.cat(self._each(ask, len(images)))

    def gradient(
        self, images: torch.Tensor, loss: RowLoss, keys: Sequence[NoiseKey]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``Subject.gradient``."""
        if not len(images):
            return self._inner.gradient(images, loss, keys)

        def ask(group: slice) -> tuple[torch.Tensor, torch.Tensor]:
            def shifted(feature: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
                return loss(feature, rows + group.start)

            feature, gradient = self._inner.gradient(images[group], shifted, keys[group])
            self._meter.count(len(feature) * self.eot_draws)
            return feature, gradient

        features, gradients = zip(*self._each(ask, len(images)), strict=True)
        return torch.cat(features), torch.cat(gradients)

    def draws(self, image: torch.Tensor, key: NoiseKey, count: int) -> Iterator[torch.Tensor]:
        """See ``Subject.draws``."""
        parts = iter(self._inner.draws(image, key, count))
        while True:
            with self._meter.busy.measure():
                part = next(parts, None)
            if part is None:
                return
            self._meter.count(len(part))
            yield part

    def draws_of_each(
        self, images: torch.Tensor, keys: Sequence[NoiseKey], count: int
    ) -> Iterator[torch.Tensor]:
        """See ``Subject.draws_of_each``; as many images at once as the crew has threads."""
        if self._crew is None:
            yield from super().draws_of_each(images, keys, count)
            return

        def ask(row: int) -> torch.Tensor:
            parts = []
            for part in self._inner.draws(images[row], keys[row], count):
                self._meter.count(len(part))
                parts.append(part)
            return torch.cat(parts)

        size = self._crew.size
        for start in range(0, len(images), size):
            with self._meter.busy.measure():
                found = self._crew.work(ask, range(len(images))[start : start + size])
            yield from found

    def note_images(self, count: int) -> None:
        """See ``Subject.note_images``."""
        self._meter.count(count)

    def _each(self, ask: Callable[[slice], Answer], pairs: int) -> list[Answer]:
        """Ask for each group of pairs; what a crew has at once is no more than one group is without it."""
        at_once = 1 if self._crew is None else min(self._crew.size, pairs)
        size = max(1, min(self.chunk // self.eot_draws // at_once, -(-pairs // at_once)))
        groups = [slice(start, start + size) for start in range(0, pairs, size)]
        if self._crew is not None:
            with self._meter.busy.measure():
                return self._crew.work(ask, groups)
        answers = []
        for group in groups:
            with self._meter.busy.measure():
                answers.append(ask(group))
        return answers
