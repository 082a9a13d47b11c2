"""How long a device worked: the share of time in which it did is the first thing to look at when a run is slow."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_HELD = 64
"""Measurements on a GPU that may be open before they are looked at."""


class BusyTime:
    """Adds up the time that a device takes for what is measured.

    On a CUDA device the device's own clock counts, so that launching work ahead does not look like working; what it
    works on at one time for two streams counts once. On a CPU the caller's clock counts; where ``parts`` threads share
    the work, each stands for its part of the device.

    Args:
        device: what works.
        parts: threads that are measured beside each other, on a CPU.
    """

    def __init__(self, device: torch.device, parts: int = 1) -> None:
        self._device = device
        self._parts = parts if device.type != "cuda" else 1
        self._seconds = 0.0
        self._open: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()
        self._until: torch.cuda.Event | None = None
        self._lock = threading.Lock()

    @contextmanager
    def measure(self) -> Iterator[None]:
        """What the device is given inside counts."""
        if self._device.type == "cuda":
            stream = torch.cuda.current_stream(self._device)
            start: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            end: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            start.record(stream)
            try:
                yield
            finally:
                end.record(stream)
                with self._lock:
                    self._open.append((start, end))
                if len(self._open) > _HELD:
                    _ = self.seconds
            return
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._seconds += (time.perf_counter() - started) / self._parts

    @property
    def seconds(self) -> float:
        """Seconds of work that has ended."""
        with self._lock:
            while self._open and self._open[0][1].query():  # type: ignore[no-untyped-call]
                start, end = self._open.popleft()
                until = self._until or start
                after = until.elapsed_time(end)  # negative: all of it is counted
                self._seconds += max(0.0, after - max(0.0, until.elapsed_time(start))) / 1000.0
                if until is start or after > 0.0:
                    self._until = end
            return self._seconds
