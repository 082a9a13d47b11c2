"""Keyed Gaussian noise, added to the canonical input without rounding error.

Noise is a function of (seed, pair id, stream, chunk index) **and of the generator**, which ``generator_name`` names:
not of the batch, the worker, the resume, nor of what the other slots hold. Streams are disjoint because the stream's
name is part of the key. Generators differ between kinds of device, between models of GPU (which share a fill among as
many threads as they have) and between versions of torch. So a run is drawn from one of them: ``runtime.noise_pin``.

Floating point (docs/theory.md section 4.8; Voráček and Hein, 2207.07209): the canonical input is an 8-bit
image, so in units of grey levels it is an integer k in 0..255. Noise is drawn as sigma x 255 x N(0, 1) and
rounded to the grid 2^-8; k + noise is then exact in float32 as long as it stays below 2^16, which ``sigma <= 30``
ensures. All later arithmetic, the division by 255 included, is a function of that exact sum and belongs to the
base encoder.

Tails. torch makes two normal numbers of a radius and an angle; on a CPU the radius comes of 24 bits and never exceeds
5.768. One number in 1.2e8 of a true Gaussian does, which is one 224 x 224 image in 830. So radii in the tail are
drawn again, within their cell, by ``refine_tails``: the largest is then 8.49. On CUDA 32 bits go to 6.76 (one image in
490,000 has a larger one); nothing is done there.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray

GRID = 256.0
"""Noise is a multiple of 1/GRID grey levels."""


SCHEME = 3
"""Version of how a key becomes noise: raise it with any change of the numbers."""
_BITS = 24
"""Bits of torch's uniform numbers on a CPU."""
_TAIL = -2.0 * math.log(64.5 / 2.0**_BITS)
"""Squared radii of the last 64 cells: before them a cell holds less than a sixtieth of what lies beyond it."""
_EITHER = np.float32(math.sqrt(_TAIL / 2.0) * (1.0 - 1e-6))
_LEAST = 2.0**-52
"""Radii end at 8.49 (one image of 224 x 224 in 3e11), where noise at sigma 30 is still exact."""
_CACHED = 16_384
"""Numbers per image up to which a whole chunk is perturbed at once on a CPU."""
_VECTOR = 16
"""torch makes normal numbers in groups of so many: images of whole groups get the same ones either way."""
_HALF = _VECTOR // 2
"""The two numbers of one radius stand so far apart."""


class Stream(StrEnum):
    """What a draw is for; draws of different streams are independent."""

    PILOT = "pilot"
    CERTIFY = "certify"
    ATTACK = "attack"
    EVALUATE = "evaluate"
    TRAIN = "train"
    ANSWER_SMOOTHED = "answer_smoothed"
    ANSWER_PILOT = "answer_pilot"
    ANSWER = "answer"


Array = NDArray[np.float64]
DrawKey = tuple[int, str, Stream, int]
"""(slot, pair id, stream, chunk index)."""


def noise_key(seed: int, pair_id: str, stream: Stream, chunk: int) -> int:
    """The 128-bit key of one chunk of one pair's draws."""
    key = f"{seed}\x1f{stream.value}\x1f{chunk}\x1f{pair_id}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=16).digest(), "big")


def generator(key: int, device: torch.device) -> torch.Generator:
    """A generator that starts where the key says, and nowhere else.

    On a CPU torch keeps only 32 bits of a seed, so that two chunks of a pair would share their noise now and then:
    the whole state of its Mersenne Twister is set instead, to words that Philox makes of the key. Other devices use
    counter-based generators that take 63 bits of the key.
    """
    made = torch.Generator(device=device)
    if device.type != "cpu":
        return made.manual_seed(key >> 65)
    state = made.manual_seed(0).get_state()
    words = np.random.Philox(key=key).random_raw(_MT_WORDS // 2).view(np.uint32)
    fields = state.numpy()
    fields[_LEFT].view(np.int32)[0] = 1  # nothing of this block is left: the first draw makes a new one
    fields[_NEXT].view(np.uint64)[0] = 0
    fields[_WORDS].view(np.uint64)[:] = words
    return made.set_state(state)


# layout of torch's CPU generator state: seed (8 bytes), left (4), seeded (4), next (8), 624 words of 8 bytes, normals
_MT_WORDS = 624
_LEFT, _NEXT, _WORDS = slice(8, 12), slice(16, 24), slice(24, 24 + _MT_WORDS * 8)


def generator_name(device: torch.device) -> str:
    """Names the generator: where names are equal, a key gives the same noise. Stored with every row.

    A GPU's multiprocessors and threads stand in it, since torch shares a fill among all of them: models that differ
    in either make other numbers of one key.
    """
    kind = device.type
    if kind == "cuda":
        found = torch.cuda.get_device_properties(device)
        kind += f"-{found.multi_processor_count}x{found.max_threads_per_multi_processor}"
    return f"torch-{torch.__version__.partition('+')[0]}-{kind}-normal-v{SCHEME}"


class NormalStream:
    """The standard normal numbers of one key, in order: how they are cut into calls changes none of them.

    Whole groups of 16, that is: a call for fewer uses up a group.

    Args:
        key: of ``noise_key``.
        device: where they are wanted.
    """

    def __init__(self, key: int, device: torch.device) -> None:
        self._source = generator(key, device)
        self._key = key
        self._tails: np.random.Generator | None = None

    def fill(self, out: torch.Tensor) -> None:
        """Fill a contiguous float32 tensor with the next numbers; on a CPU with tails up to 8.49."""
        if out.device.type != "cpu":
            torch.randn(out.shape, generator=self._source, out=out)
            return
        whole = out.numel() % _VECTOR == 0
        numbers = out.view(-1) if whole else torch.empty(-(-out.numel() // _VECTOR) * _VECTOR)
        torch.randn(numbers.shape, generator=self._source, out=numbers)
        refine_tails(numbers, self._within)
        if not whole:
            out.view(-1).copy_(numbers[: out.numel()])

    def _within(self, count: int) -> Array:
        """Uniform numbers for tails, from words of the key that start no generator; made when the first is needed."""
        if self._tails is None:
            self._tails = np.random.Generator(np.random.Philox(key=self._key, counter=1 << 192))
        return self._tails.random(count)


def refine_tails(numbers: torch.Tensor, within: Callable[[int], Array]) -> None:
    """Draw large radii again, each within the cell that torch's 24 bits left it, in place.

    Numbers j and j + 8 of each 16 have the radius sqrt(-2 ln(k / 2^24)) with a whole k, 1 at the end of the tail. In
    truth k / 2^24 is uniform between (k - 1) / 2^24 and k / 2^24: that matters where k is small.

    Args:
        numbers: float32 on a CPU, 1-d, a multiple of 16 of them, as torch.randn made them.
        within: makes so many uniform numbers in [0, 1).
    """
    values = numbers.numpy()
    # where a radius is in the tail, one of its two numbers is at least sqrt(1/2) of it: few numbers are
    first = np.flatnonzero(np.abs(values) > _EITHER) & ~_HALF
    squared = values[first].astype(np.float64) ** 2 + values[first | _HALF].astype(np.float64) ** 2
    first = np.unique(first[squared > _TAIL])
    if not len(first):
        return
    second = first | _HALF
    squared = values[first].astype(np.float64) ** 2 + values[second].astype(np.float64) ** 2
    cell = np.rint(np.exp(-0.5 * squared) * 2.0**_BITS)
    drawn = np.maximum((cell - within(len(cell))) / 2.0**_BITS, _LEAST)
    scale = np.sqrt(-2.0 * np.log(drawn) / squared).astype(np.float32)
    values[first] *= scale
    values[second] *= scale


class NoiseSource:
    """Writes ``x + noise`` for many slots at once.

    Args:
        sigma: standard deviation in units of [0,1] pixels, at most 30.
        seed: root of all keys.
        device: where the batch lives.
    """

    def __init__(self, sigma: float, seed: int, device: torch.device) -> None:
        self._scale = sigma * 255.0 * GRID
        self._seed = seed
        self._device = device

    def fill(
        self,
        batch: torch.Tensor,
        pixels: torch.Tensor,
        keys: Sequence[DrawKey],
    ) -> None:
        """Overwrite ``batch[slot]`` with noisy copies of ``pixels[slot]`` for every key.

        Args:
            batch: (slots, chunk, 3, H, W) float32, in units of [0,1] pixels afterwards.
            pixels: (slots, 3, H, W) uint8.
            keys: (slot, pair id, stream, chunk index); the first draw of the first pilot chunk is the clean
                input itself, without noise.
        """
        for key in keys:
            self._fill_slot(batch, pixels, key)

    def _fill_slot(self, batch: torch.Tensor, pixels: torch.Tensor, key: DrawKey) -> None:
        slot, pair_id, stream, chunk = key
        numbers = NormalStream(noise_key(self._seed, pair_id, stream, chunk), self._device)
        grey = pixels[slot].to(torch.float32)
        if self._device.type == "cpu" and (grey.numel() > _CACHED or grey.numel() % _VECTOR):
            # one image at a time stays in the cache through all passes
            for draw in batch[slot]:
                self._perturb(draw, grey, numbers)
        else:
            self._perturb(batch[slot], grey, numbers)
        if stream is Stream.PILOT and chunk == 0:
            batch[slot, 0] = grey.mul_(1.0 / 255.0)

    def _perturb(self, out: torch.Tensor, grey: torch.Tensor, numbers: NormalStream) -> None:
        numbers.fill(out)
        # multiples of 1/GRID and integers below 2^16: the sum is exact
        torch.add(grey, out.mul_(self._scale).round_(), alpha=1.0 / GRID, out=out).mul_(1.0 / 255.0)
