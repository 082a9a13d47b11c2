"""Randomness of attacks: a function of a pair's key, never of the batch the pair is in.

Keys hold (seed, pair id, stream, index...). Two streams exist here: ``attack`` (everything an attack uses to
find a perturbation) and ``evaluate`` (everything used to judge one), disjoint because the stream's name is
part of the key; certification uses other streams, so an attack can never have seen the draws that certify or
judge.

On a CPU numbers come from numpy's Philox with a 128-bit key: torch's CPU generator keeps only the low 32
bits of its seed, and the birthday paradox would make keys share noise within one large run. Accelerators use
torch's generator (64-bit seed), so figures are reproducible on one kind of device, not across kinds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

NOISE_BLOCK = 16
"""Draws that share one generator: chunk sizes change neither which draws are made nor their order."""

AttackStream = Literal["attack", "evaluate"]


@dataclass(frozen=True, slots=True)
class NoiseKey:
    """What one pair's randomness is a function of.

    Attributes:
        seed: root seed of the attack job.
        pair_id: stable name of the pair.
        stream: ``attack`` while searching, ``evaluate`` while judging.
        index: what it is for: the attack's name, restart, step, and so on.
    """

    seed: int
    pair_id: str
    stream: AttackStream
    index: tuple[int | str, ...] = ()

    def at(self, *index: int | str) -> NoiseKey:
        """This key with ``index`` appended."""
        return NoiseKey(self.seed, self.pair_id, self.stream, self.index + index)

    def digest(self) -> int:
        """128 bits that name this key."""
        # Every part carries its length, so that no two different keys spell the same bytes.
        parts = (str(self.seed), self.pair_id, self.stream, *(f"{type(i).__name__}:{i}" for i in self.index))
        spelled = b"".join(len(raw).to_bytes(4, "big") + raw for raw in (part.encode() for part in parts))
        return int.from_bytes(hashlib.blake2b(spelled, digest_size=16, person=b"smoothcert").digest(), "big")


def normal(key: NoiseKey, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Standard normal numbers, float32, on ``device``."""
    if device.type == "cpu":
        numbers = np.random.Generator(np.random.Philox(key=key.digest()))
        return torch.from_numpy(numbers.standard_normal(shape, dtype=np.float32))
    return torch.randn(shape, generator=_generator(key, device), device=device)


def uniform(key: NoiseKey, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Uniform numbers in [0,1), float32, on ``device``."""
    if device.type == "cpu":
        numbers = np.random.Generator(np.random.Philox(key=key.digest()))
        return torch.from_numpy(numbers.random(shape, dtype=np.float32))
    return torch.rand(shape, generator=_generator(key, device), device=device)


def normals(keys: Sequence[NoiseKey], shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """One ``normal`` a key, stacked: (len(keys), *shape)."""
    return torch.stack([normal(key, shape, device) for key in keys])


def uniforms(keys: Sequence[NoiseKey], shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """One ``uniform`` a key, stacked: (len(keys), *shape)."""
    return torch.stack([uniform(key, shape, device) for key in keys])


def draw_chunks(
    key: NoiseKey, shape: tuple[int, ...], draws: int, chunk: int, device: torch.device
) -> Iterator[torch.Tensor]:
    """The ``draws`` normal draws of a key in order, at most ``chunk`` at a time: (<= chunk, *shape) each.

    The concatenation does not depend on ``chunk``.
    """
    held: list[torch.Tensor] = []
    count = 0
    for block, start in enumerate(range(0, draws, NOISE_BLOCK)):
        numbers = normal(key.at("block", block), (min(NOISE_BLOCK, draws - start), *shape), device)
        while len(numbers):
            part, numbers = numbers[: chunk - count], numbers[chunk - count :]
            held.append(part)
            count += len(part)
            if count == chunk:
                yield torch.cat(held) if len(held) > 1 else held[0]
                held, count = [], 0
    if held:
        yield torch.cat(held) if len(held) > 1 else held[0]


def _generator(key: NoiseKey, device: torch.device) -> torch.Generator:
    return torch.Generator(device=device).manual_seed(key.digest() >> 65)
