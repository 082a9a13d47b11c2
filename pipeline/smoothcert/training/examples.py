"""Training images in memory, and which of them are held out."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from smoothcert.datasets import Pair, Source
from smoothcert.encoders import Encoder
from smoothcert.engine.decoding import DecodeAhead, DecodedPair
from smoothcert.errors import SourceError
from smoothcert.job import Job

FEWEST_TRAINING, FEWEST_HELD_OUT = 8, 2
"""Images below which nothing is trained."""
MOST_BYTES = 16 * 2**30
"""Of all images as the encoder reads them, which are kept in memory."""
UNKNOWN = -1
"""The class of an image whose label the job does not name."""
_UNIT = 1 << 16

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Examples:
    """Some images.

    Attributes:
        pixels: uint8 (N, 3, H, W), canonical inputs times 255, on the encoder's device.
        classes: int64 (N,) indices into ``zero_shot.labels``, or ``UNKNOWN``.
        pair_ids: N of them.
    """

    pixels: torch.Tensor
    classes: torch.Tensor
    pair_ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, rows: torch.Tensor | slice) -> torch.Tensor:
        """Some of the images, float32 in [0,1]."""
        # rows by index_select, which copies whole images where indexing goes pixel by pixel
        some = self.pixels[rows] if isinstance(rows, slice) else self.pixels.index_select(0, rows)
        return some.float().div_(255)

    def head(self, count: int) -> Examples:
        """The first of them."""
        return Examples(self.pixels[:count], self.classes[:count], self.pair_ids[:count])


@dataclass(frozen=True, slots=True)
class Corpus:
    """All images of a training.

    Attributes:
        training: images to fit.
        held_out: images to validate on.
        digest: of the data that they come from.
    """

    training: Examples
    held_out: Examples
    digest: str


def is_held_out(pair_id: str, share: float) -> bool:
    """Whether a pair is for validation only: by a hash of its id, so that no change of order or limit moves it."""
    place = int.from_bytes(
        hashlib.blake2b(f"validation\x1f{pair_id}".encode(), digest_size=8).digest(), "big"
    )
    return place < share * 2**64


def load_examples(job: Job, encoder: Encoder, source: Source) -> tuple[Examples, Examples]:
    """All pairs of a job that can be read, for training and held out.

    Pairs that cannot be read or decoded are left out, with a warning; for a method that is led by labels also those
    whose label ``zero_shot`` does not name.

    Raises:
        SourceError: there are too few, or more than fit into ``MOST_BYTES``.
    """
    assert job.train is not None
    height, width = encoder.input_size
    pairs = sum(file.pairs for file in source.files())
    if (size := pairs * 3 * height * width) > MOST_BYTES:
        raise SourceError(
            f"data: {pairs:,} images of {height}x{width} take {size / 2**30:.0f} GiB; training keeps them in memory",
            remedy=f"set data.limit to at most {MOST_BYTES // (3 * height * width):,}",
        )
    labels = {} if job.zero_shot is None else {name: i for i, name in enumerate(job.zero_shot.labels)}
    led = job.train.method == "tecoa"
    kept: dict[bool, list[tuple[str, NDArray[np.uint8], int]]] = {False: [], True: []}
    left_out: dict[str, int] = {}
    for decoded in _decode(job, encoder, source):
        pair = decoded.pair
        where = labels.get(pair.label or "", UNKNOWN)
        reason = type(decoded.error).__name__ if decoded.error is not None else ""
        reason = reason or ("no known label" if led and where == UNKNOWN else "")
        if reason or decoded.pixels is None:
            left_out[reason] = left_out.get(reason, 0) + 1
            continue
        kept[is_held_out(pair.pair_id, job.train.validation)].append((pair.pair_id, decoded.pixels, where))
    for reason, count in sorted(left_out.items()):
        log.warning("%s of %s pairs are left out of training: %s", f"{count:,}", f"{pairs:,}", reason)
    _refuse_too_few(len(kept[False]), len(kept[True]), job.train.validation)
    return _stack(kept[False], encoder.device), _stack(kept[True], encoder.device)


def _decode(job: Job, encoder: Encoder, source: Source) -> Iterator[DecodedPair]:
    pairs: Iterator[tuple[str, Pair]] = (
        (unit.unit_id, pair) for unit in source.units(_UNIT) for pair in source.read(unit)
    )
    feed = DecodeAhead(
        pairs, encoder, threads=job.executor.decode_threads, depth=64, max_pixels=job.data.max_pixels
    )
    try:
        while not feed.exhausted:
            found = feed.take(block=True)
            if found is not None:
                yield found
    finally:
        feed.close()


def _refuse_too_few(training: int, held_out: int, share: float) -> None:
    if training < FEWEST_TRAINING or held_out < FEWEST_HELD_OUT:
        raise SourceError(
            f"data: {training} images to train on and {held_out} held out are too few (at least {FEWEST_TRAINING} and "
            f"{FEWEST_HELD_OUT})",
            remedy=f"give more pairs, or change train.validation={share:g}",
        )


def _stack(kept: list[tuple[str, NDArray[np.uint8], int]], device: torch.device) -> Examples:
    return Examples(
        torch.from_numpy(np.stack([pixels for _, pixels, _ in kept])).to(device),
        torch.tensor([where for _, _, where in kept], device=device),
        tuple(name for name, _, _ in kept),
    )
