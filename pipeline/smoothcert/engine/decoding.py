"""Decoding ahead: pairs are read and brought to canonical inputs on CPU threads, through a bounded queue."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from smoothcert.datasets import Pair, decode_image
from smoothcert.errors import DecodeError, PairError

if TYPE_CHECKING:
    from PIL import Image


class Prepares(Protocol):
    """What makes canonical inputs of images: an encoder, or what answers questions about them."""

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """See ``Encoder.prepare``."""


@dataclass(frozen=True, slots=True)
class DecodedPair:
    """A pair on its way into a slot: its canonical input, or the reason why there is none.

    Attributes:
        token: what the pair came with.
        pair: as read; of the image's bytes only the digest is left.
        pixels: uint8 (3, H, W), the canonical input times 255; None with an error.
        error: what went wrong with this pair.
    """

    token: str
    pair: Pair
    pixels: NDArray[np.uint8] | None
    error: PairError | None


class Feed(Protocol):
    """Pairs for an engine, ready or on their way."""

    @property
    def exhausted(self) -> bool:
        """Whether there are no more."""

    def take(self, *, block: bool) -> DecodedPair | None:
        """The next pair; None when there is none yet (``block=False``) or none at all (``exhausted``)."""


class DecodeAhead:
    """Runs through (token, pair) in order, decoding up to ``depth`` pairs ahead of ``take``.

    The source is advanced by one reader thread, images are decoded by ``threads`` others; memory is bounded by
    ``depth`` images whatever the size of the source.
    """

    def __init__(
        self,
        pairs: Iterable[tuple[str, Pair]],
        encoder: Prepares,
        *,
        threads: int = 1,
        depth: int = 16,
        max_pixels: int,
    ) -> None:
        self._pairs = pairs
        self._encoder = encoder
        self._max_pixels = max_pixels
        self._queue: queue.Queue[Future[DecodedPair] | BaseException | None] = queue.Queue(depth)
        self._pool = ThreadPoolExecutor(threads, "decode")
        self._stopped = threading.Event()
        self._waiting: deque[Future[DecodedPair]] = deque()
        self.exhausted = False
        self._reader = threading.Thread(target=self._read, name="read", daemon=True)
        self._reader.start()

    def take(self, *, block: bool) -> DecodedPair | None:
        """The next pair; None when there is none yet (``block=False``) or none at all (``exhausted``).

        Raises:
            SourceError: the source as a whole failed; pairs before it were delivered.
        """
        if not self._waiting and not self.exhausted:
            try:
                item = self._queue.get(block=block)
            except queue.Empty:
                return None
            if item is None:
                self.exhausted = True
            elif isinstance(item, BaseException):
                self.exhausted = True
                raise item
            else:
                self._waiting.append(item)
        if not self._waiting or not (block or self._waiting[0].done()):
            return None
        return self._waiting.popleft().result()

    @property
    def waiting(self) -> int:
        """Pairs that were read and wait to be taken, decoded or soon to be."""
        return self._queue.qsize() + len(self._waiting)

    def close(self) -> None:
        """Stop reading; what was decoded is dropped."""
        self._stopped.set()
        while True:
            try:
                self._queue.get_nowait()
            except queue.Empty:
                break
        with contextlib.suppress(queue.Full):  # then a reader filled it again, and no one is waiting
            self._queue.put_nowait(None)  # wakes a consumer that waits in take
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _read(self) -> None:
        end: BaseException | None = None
        try:
            for token, pair in self._pairs:
                if self._stopped.is_set():
                    return
                self._put(self._pool.submit(self._decode, token, pair))
        except BaseException as exc:  # handed to the consumer, who raises it
            end = exc
        self._put(end)

    def _put(self, item: Future[DecodedPair] | BaseException | None) -> None:
        while not self._stopped.is_set():
            try:
                return self._queue.put(item, timeout=0.2)
            except queue.Full:
                continue

    def _decode(self, token: str, pair: Pair) -> DecodedPair:
        without_bytes = pair.without_image()
        if pair.error is not None:
            return DecodedPair(token, without_bytes, None, pair.error)
        try:
            image = decode_image(pair.image or b"", max_pixels=self._max_pixels)
            pixels = self._encoder.prepare(image)
        except PairError as exc:
            return DecodedPair(token, without_bytes, None, exc)
        except Exception as exc:
            reason = DecodeError(f"{type(exc).__name__} while preparing the image: {exc}")
            return DecodedPair(token, without_bytes, None, reason)
        return DecodedPair(token, without_bytes, np.ascontiguousarray(pixels), None)
