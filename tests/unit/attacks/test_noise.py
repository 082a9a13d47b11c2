from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from smoothcert.attacks.noise import NoiseKey, draw_chunks, normal, normals, uniform

CPU = torch.device("cpu")


def test_every_part_of_a_key_matters() -> None:
    keys = [
        NoiseKey(seed, pair, stream, index)
        for seed, pair, stream, index in itertools.product(
            (0, 1, 2**32, 2**63),
            ("a", "b", "a\x1fb"),
            ("attack", "evaluate"),
            ((), (0,), ("0",), (0, 1), (1, 0)),
        )
    ]
    assert len({key.digest() for key in keys}) == len(keys)
    firsts = {float(normal(key, (1,), CPU)) for key in keys}
    assert len(firsts) == len(keys)


def test_parts_cannot_run_into_each_other() -> None:
    assert NoiseKey(1, "2a", "attack").digest() != NoiseKey(12, "a", "attack").digest()
    assert NoiseKey(1, "a", "attack", ("b", "c")).digest() != NoiseKey(1, "a", "attack", ("bc",)).digest()


def test_a_pair_gets_the_same_numbers_in_any_company() -> None:
    keys = [NoiseKey(0, name, "attack", (3,)) for name in "abc"]
    together = normals(keys, (2, 5), CPU)
    for row, key in enumerate(keys):
        assert torch.equal(together[row], normal(key, (2, 5), CPU))


@pytest.mark.parametrize("draws", [1, 16, 17, 64])
def test_chunks_change_nothing(draws: int) -> None:
    key = NoiseKey(0, "a", "evaluate")
    whole = torch.cat(list(draw_chunks(key, (3, 2, 2), draws, 1000, CPU)))
    assert whole.shape == (draws, 3, 2, 2)
    for chunk in (1, 5, 16, 40):
        parts = list(draw_chunks(key, (3, 2, 2), draws, chunk, CPU))
        assert all(len(part) == chunk for part in parts[:-1])
        assert torch.equal(torch.cat(parts), whole)


def test_draws_are_standard_normal_and_distinct() -> None:
    numbers = torch.cat(list(draw_chunks(NoiseKey(0, "a", "evaluate"), (50,), 2000, 64, CPU))).numpy()
    # 100,000 numbers: five standard errors
    assert abs(numbers.mean()) < 5 / np.sqrt(numbers.size)
    assert abs(numbers.var() - 1) < 5 * np.sqrt(2 / numbers.size)
    assert len(np.unique(numbers[:, 0])) == 2000


def test_uniform_numbers_are_in_range() -> None:
    numbers = uniform(NoiseKey(0, "a", "attack"), (10_000,), CPU)
    assert 0 <= numbers.min() and numbers.max() < 1
    assert abs(float(numbers.mean()) - 0.5) < 5 / np.sqrt(12 * 10_000)
