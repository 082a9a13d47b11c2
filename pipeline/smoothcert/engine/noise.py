"""Keyed Gaussian noise, added to the canonical input without rounding error.

Noise is a function of (seed, pair id, stream, chunk index) and of nothing else: not of the batch, the worker,
the resume, nor of what the other slots hold. Streams are disjoint because the stream's name is part of the key.

Floating point (docs/theory.md section 4.8; Voráček and Hein, 2207.07209): the canonical input is an 8-bit
image, so in units of grey levels it is an integer k in 0..255. Noise is drawn as sigma x 255 x N(0, 1) and
rounded to the grid 2^-8; k + noise is then exact in float32 as long as it stays below 2^16, which ``sigma <= 30``
ensures. All later arithmetic, the division by 255 included, is a function of that exact sum and belongs to the
base encoder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import StrEnum

import numpy as np
import torch

GRID = 256.0
"""Noise is a multiple of 1/GRID grey levels."""


_CACHED = 16_384
"""Numbers per image up to which a whole chunk is perturbed at once on a CPU."""
_VECTOR = 16
"""torch makes normal numbers in groups of so many: images of whole groups get the same ones either way."""


class Stream(StrEnum):
    """What a draw is for; draws of different streams are independent."""

    PILOT = "pilot"
    CERTIFY = "certify"
    ATTACK = "attack"
    EVALUATE = "evaluate"


NoiseKey = tuple[int, str, Stream, int]
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
    """Names the generator, which differs between device kinds; stored with every row."""
    return f"torch-{device.type}-normal-v2"


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
        keys: Sequence[NoiseKey],
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

    def _fill_slot(self, batch: torch.Tensor, pixels: torch.Tensor, key: NoiseKey) -> None:
        slot, pair_id, stream, chunk = key
        source = generator(noise_key(self._seed, pair_id, stream, chunk), self._device)
        grey = pixels[slot].to(torch.float32)
        if self._device.type == "cpu" and (grey.numel() > _CACHED or grey.numel() % _VECTOR):
            # one image at a time stays in the cache through all passes
            for draw in batch[slot]:
                self._perturb(draw, grey, source)
        else:
            self._perturb(batch[slot], grey, source)
        if stream is Stream.PILOT and chunk == 0:
            batch[slot, 0] = grey.mul_(1.0 / 255.0)

    def _perturb(self, out: torch.Tensor, grey: torch.Tensor, source: torch.Generator) -> None:
        torch.randn(out.shape, generator=source, out=out)
        # multiples of 1/GRID and integers below 2^16: the sum is exact
        out.mul_(self._scale).round_().mul_(1.0 / GRID).add_(grey).mul_(1.0 / 255.0)
