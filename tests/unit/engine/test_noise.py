"""Keyed noise: a function of its key alone, Gaussian, and exact in floating point."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm

from smoothcert.engine.noise import GRID, NoiseSource, Stream, generator, generator_name, noise_key

CPU = torch.device("cpu")
H, W = 6, 5


def images(count: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (count, 3, H, W), dtype=np.uint8))


def filled(
    pixels: torch.Tensor, keys: list, *, chunk: int = 3, sigma: float = 0.25, seed: int = 7
) -> torch.Tensor:
    """The batch after ``fill``, with a value no draw can have where nothing was written."""
    batch = torch.full((len(pixels), chunk, 3, H, W), 1e9)
    NoiseSource(sigma, seed, CPU).fill(batch, pixels, keys)
    return batch


def grid_steps(noisy: torch.Tensor) -> np.ndarray:
    """The integer j with noisy = (j / 256) / 255, as float32 arithmetic makes it; asserts that there is one."""
    steps = torch.round(noisy.double() * 255.0 * GRID)
    rebuilt = (steps / GRID).float() * torch.tensor(1.0 / 255.0, dtype=torch.float32)
    assert torch.equal(rebuilt, noisy)
    return steps.numpy()


def test_a_key_gives_the_same_draws_in_any_slot_batch_and_order():
    pixels = images(4)
    alone = filled(pixels[2:3], [(0, "p2", Stream.CERTIFY, 5)])[0]
    keys = [(slot, f"p{slot}", Stream.CERTIFY, 5) for slot in range(4)]
    together = filled(pixels, keys)
    backwards = filled(
        pixels.flip(0), [(3 - slot, f"p{slot}", Stream.CERTIFY, 5) for slot in reversed(range(4))]
    )
    assert torch.equal(together[2], alone)
    assert torch.equal(backwards[1], alone)


def test_slots_without_a_key_are_left_alone():
    batch = filled(images(3), [(1, "p", Stream.PILOT, 1)])
    assert (batch[0] == 1e9).all() and (batch[2] == 1e9).all() and (batch[1] != 1e9).all()


def test_a_longer_chunk_begins_with_the_draws_of_a_shorter_one():
    pixels, key = images(1), [(0, "p", Stream.CERTIFY, 0)]
    assert torch.equal(filled(pixels, key, chunk=9)[:, :4], filled(pixels, key, chunk=4))


def test_any_difference_in_the_key_gives_other_noise():
    pixels = images(1)
    base = filled(pixels, [(0, "p", Stream.CERTIFY, 0)])
    others = [
        filled(pixels, [(0, "q", Stream.CERTIFY, 0)]),
        filled(pixels, [(0, "p", Stream.CERTIFY, 1)]),
        filled(pixels, [(0, "p", Stream.CERTIFY, 0)], seed=8),
        *(filled(pixels, [(0, "p", stream, 0)]) for stream in (Stream.PILOT, Stream.ATTACK, Stream.EVALUATE)),
    ]
    for one, two in itertools.combinations([base, *others], 2):
        # two independent draws agree on the 2^-8 grid in about 1 of 40,000 pixels
        assert (one == two).float().mean() < 0.05


def test_keys_cannot_be_confused_by_pairs_that_look_like_keys():
    """Ids come from file names: separators inside them must not shift a chunk or a stream into the id."""
    parts = [(1, "2"), (12, ""), (1, "\x1f2"), (1, "pilot"), (1, "certify\x1f1\x1fp"), (11, "p")]
    keys = {noise_key(0, pair, stream, chunk) for chunk, pair in parts for stream in Stream}
    assert len(keys) == len(parts) * len(Stream)
    assert all(0 <= key < 2**128 for key in keys)


def test_the_whole_key_decides_and_not_only_32_bits_of_it():
    """Keys that differ in one bit, whichever it is, give streams that differ almost everywhere."""
    key = noise_key(0, "p", Stream.CERTIFY, 0)
    streams = [
        torch.randn(200, generator=generator(other, CPU))
        for other in (key, *(key ^ 1 << b for b in range(128)))
    ]
    for one, two in itertools.combinations(streams, 2):
        assert (one == two).float().mean() < 0.05


def test_the_generator_starts_exactly_where_the_key_says():
    """Its words, against numpy's Mersenne Twister given the state that numpy's Philox makes of the key."""
    key = noise_key(3, "some pair", Stream.PILOT, 2)
    twister = np.random.MT19937()
    words = np.random.Philox(key=key).random_raw(312).view(np.uint32)
    twister.state = {"bit_generator": "MT19937", "state": {"key": words, "pos": 624}}
    theirs = torch.empty(2000, dtype=torch.int64).random_(0, 2**31, generator=generator(key, CPU)).numpy()
    # torch makes a 64-bit number of two words and keeps the low 31 bits here: those of every second word
    np.testing.assert_array_equal(theirs, twister.random_raw(4000)[1::2].astype(np.int64) % 2**31)


@pytest.mark.parametrize("sigma", [0.01, 0.25, 1.0, 10.0])
def test_the_noisy_input_is_exactly_on_the_grid_and_keeps_no_bits_of_the_image(sigma):
    """The same key on two images moves both by the same multiple of 1/256 grey level, without rounding."""
    one, other = images(1, 1), images(1, 2)
    key = [(0, "p", Stream.CERTIFY, 0)]
    moves = [
        grid_steps(filled(x, key, chunk=40, sigma=sigma)) - GRID * x[:, None].double().numpy()
        for x in (one, other)
    ]
    np.testing.assert_array_equal(moves[0], moves[1])
    np.testing.assert_array_equal(moves[0], np.rint(moves[0]))
    assert np.abs(moves[0]).max() < 2**24


def test_the_noise_is_gaussian_with_the_stated_sigma():
    """False failures: 1e-6 for each of three statements.

    864,000 draws; the grid moves a quantile by at most 1/512 grey level, 3e-5 sigma at sigma 0.25, far below
    what Kolmogorov's test sees at this size.
    """
    sigma = 0.25
    x = images(1)
    draws = filled(x, [(0, "gauss", Stream.CERTIFY, 3)], chunk=9600, sigma=sigma)
    noise = (grid_steps(draws) / GRID - x[:, None].double().numpy()).ravel() / (255.0 * sigma)
    n = noise.size
    z = norm.isf(0.5e-6)
    assert abs(noise.mean()) < z / np.sqrt(n)
    assert abs(noise.var() - 1) < z * np.sqrt(2 / n)
    assert kstest(noise, "norm").pvalue > 1e-6


def test_draws_channels_pixels_and_chunks_are_uncorrelated():
    """Every off-diagonal correlation of 180 coordinates over 4,000 draws; false failure 1e-6 (Bonferroni)."""
    x = images(2)
    keys = [(0, "a", Stream.CERTIFY, 0), (1, "a", Stream.CERTIFY, 1)]
    draws = filled(x, keys, chunk=4000).double().numpy().reshape(2, 4000, -1)
    both = np.concatenate([draws[0], draws[1]], axis=1)
    correlations = np.corrcoef(both, rowvar=False)[np.triu_indices(both.shape[1], 1)]
    # Fisher's z has deviation 1/sqrt(n - 3)
    limit = np.tanh(norm.isf(0.5e-6 / correlations.size) / np.sqrt(4000 - 3))
    assert np.abs(correlations).max() < limit
    flat = draws[0] - draws[0].mean(axis=0)
    neighbours = np.sum(flat[1:] * flat[:-1]) / np.sum(flat**2)
    assert abs(neighbours) < norm.isf(0.5e-6) / np.sqrt(flat.size)


def test_the_first_pilot_draw_is_the_clean_input_and_only_that_one():
    x = images(1)
    clean = x[0].float() * torch.tensor(1.0 / 255.0, dtype=torch.float32)
    pilot = filled(x, [(0, "p", Stream.PILOT, 0)])[0]
    assert torch.equal(pilot[0], clean)
    assert not torch.equal(pilot[1], clean)
    for stream, chunk in [(Stream.PILOT, 1), (Stream.CERTIFY, 0), (Stream.ATTACK, 0), (Stream.EVALUATE, 0)]:
        draws = filled(x, [(0, "p", stream, chunk)])[0]
        assert (draws != clean).float().mean() > 0.95
    assert torch.equal(x, images(1)), "the canonical input itself was changed"


def test_the_generator_is_named_with_the_kind_of_device():
    assert generator_name(CPU) != generator_name(torch.device("cuda", 1))
    assert generator_name(torch.device("cuda", 0)) == generator_name(torch.device("cuda", 1))
