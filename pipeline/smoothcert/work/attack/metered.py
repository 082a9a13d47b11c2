"""A subject that counts what it is asked, so that a worker in the middle of an attack can show that it lives."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import torch

from smoothcert.attacks import Subject
from smoothcert.attacks.noise import NoiseKey
from smoothcert.attacks.subjects import RowLoss
from smoothcert.engine.busy import BusyTime
from smoothcert.errors import ExecutorError


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
        self.images += images


class MeteredSubject(Subject):
    """Another subject, asked in groups that fit one forward pass and counted after each.

    Args:
        inner: the subject.
        meter: what counts.
    """

    def __init__(self, inner: Subject, meter: Meter) -> None:
        super().__init__(
            inner.encoder, name=inner.name, eot_draws=inner.eot_draws, sigma=inner.sigma, chunk=inner.chunk
        )
        self._inner = inner
        self._meter = meter

    def features(self, images: torch.Tensor, keys: Sequence[NoiseKey]) -> torch.Tensor:
        """See ``Subject.features``."""
        parts = [self._inner.features(images[:0], keys[:0])] if not len(images) else []
        for start in range(0, len(images), self._group):
            group = slice(start, start + self._group)
            with self._meter.busy.measure():
                parts.append(self._inner.features(images[group], keys[group]))
            self._meter.count(len(parts[-1]) * self.eot_draws)
        return torch.cat(parts)

    def gradient(
        self, images: torch.Tensor, loss: RowLoss, keys: Sequence[NoiseKey]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``Subject.gradient``."""
        if not len(images):
            return self._inner.gradient(images, loss, keys)
        features, gradients = [], []
        for start in range(0, len(images), self._group):
            group = slice(start, start + self._group)

            def shifted(feature: torch.Tensor, rows: torch.Tensor, first: int = start) -> torch.Tensor:
                return loss(feature, rows + first)

            with self._meter.busy.measure():
                feature, gradient = self._inner.gradient(images[group], shifted, keys[group])
            features.append(feature)
            gradients.append(gradient)
            self._meter.count(len(feature) * self.eot_draws)
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

    def note_images(self, count: int) -> None:
        """See ``Subject.note_images``."""
        self._meter.count(count)

    @property
    def _group(self) -> int:
        return max(1, self.chunk // self.eot_draws)
