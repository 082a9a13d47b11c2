"""Keyed noise: a function of its key alone, Gaussian, and exact in floating point."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm

from smoothcert.engine.noise import (
    GRID,
    NoiseSource,
    NormalStream,
    Stream,
    generator,
    generator_name,
    noise_key,
    refine_tails,
)

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


def test_torch_makes_a_radius_of_24_bits_where_tails_are_refined():
    """The layout that ``refine_tails`` rests on, from torch's own uniform numbers."""
    key = noise_key(1, "p", Stream.CERTIFY, 0)
    uniform = torch.rand(16_000, generator=generator(key, CPU)).double().view(-1, 2, 8)
    normal = torch.randn(16_000, generator=generator(key, CPU)).double().view(-1, 2, 8)
    cells = (1.0 - uniform[:, 0]) * 2.0**24
    assert torch.equal(cells, cells.round())
    radius, angle = (-2.0 * (cells / 2.0**24).log()).sqrt(), 2.0 * np.pi * uniform[:, 1]
    torch.testing.assert_close(normal[:, 0], radius * angle.cos(), rtol=0, atol=2e-6)
    torch.testing.assert_close(normal[:, 1], radius * angle.sin(), rtol=0, atol=2e-6)


def in_the_tail(cells: np.ndarray, angles: np.ndarray) -> torch.Tensor:
    """Normal numbers as torch makes them of the radii's cells, 8 a row, and angles."""
    radius = np.sqrt(-2.0 * np.log(cells / 2.0**24))
    pairs = np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)
    return torch.from_numpy(pairs.astype(np.float32).ravel())


@pytest.mark.parametrize("cell", [1, 2, 37, 64])
def test_a_radius_in_the_tail_is_drawn_again_within_its_cell(cell):
    """U = exp(-r^2/2) is uniform between (cell - 1)/2^24 and cell/2^24; Kolmogorov's test, false failure 1e-6."""
    rng = np.random.default_rng(cell)
    angles = rng.uniform(0, 2 * np.pi, (2500, 8))
    numbers = in_the_tail(np.full((2500, 8), float(cell)), angles)
    refine_tails(numbers, rng.random)
    x, y = numbers.double().view(-1, 2, 8).unbind(1)
    within = np.exp(-(x**2 + y**2).numpy() / 2) * 2.0**24 - (cell - 1)
    # float32 numbers leave an error of 1e-6 of their square
    assert within.min() > -1e-4 * cell and within.max() < 1 + 1e-4 * cell
    assert kstest(within.ravel(), "uniform").pvalue > 1e-6
    turned = np.arctan2(y.numpy(), x.numpy()) - angles
    assert np.abs((turned + np.pi) % (2 * np.pi) - np.pi).max() < 1e-6


def test_only_tails_are_drawn_again():
    rng = np.random.default_rng(0)
    cells = rng.integers(1, 256, (500, 8)).astype(np.float64)
    before = in_the_tail(cells, rng.uniform(0, 2 * np.pi, (500, 8)))
    after = before.clone()
    refine_tails(after, rng.random)
    changed = (before != after).view(-1, 2, 8).any(dim=1).numpy()
    assert not changed[cells > 64].any()
    assert changed[cells <= 64].mean() > 0.99  # within a wide cell a number may happen to stay where it was


def test_the_largest_number_is_beyond_24_bits_and_still_exact_at_the_largest_sigma():
    last = in_the_tail(np.ones((1, 8)), np.zeros((1, 8)))
    refine_tails(last, lambda count: np.full(count, 1 - 2.0**-53))
    assert 8.49 < float(last.max()) < 8.4905
    assert float(last.max()) * 30 * 255 + 255 < 2**16


def test_how_numbers_are_cut_into_calls_changes_none_of_them():
    """8 million numbers have about 15 radii in the tail, whatever the cut."""
    key = noise_key(0, "p", Stream.CERTIFY, 0)
    whole = torch.empty(8_000_000)
    NormalStream(key, CPU).fill(whole)
    plain = torch.randn(8_000_000, generator=generator(key, CPU))
    assert 5 <= (whole != plain).sum() // 2 <= 40
    parts, stream = torch.empty(8_000_000), NormalStream(key, CPU)
    for part in parts.split(160_000):
        stream.fill(part)
    assert torch.equal(parts, whole)
    for size in (1, 5, 90):
        begun = torch.empty(size)
        NormalStream(key, CPU).fill(begun)
        assert torch.equal(begun, whole[:size])


def test_the_generator_is_named_with_what_pins_its_numbers(monkeypatch):
    """Two models of GPU that differ in multiprocessors or threads make other numbers; two of one model the same."""
    models = {
        0: SimpleNamespace(multi_processor_count=132, max_threads_per_multi_processor=2048),
        1: SimpleNamespace(multi_processor_count=132, max_threads_per_multi_processor=2048),
        2: SimpleNamespace(multi_processor_count=108, max_threads_per_multi_processor=2048),
        3: SimpleNamespace(multi_processor_count=132, max_threads_per_multi_processor=1536),
    }
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: models[device.index])
    names = [generator_name(torch.device("cuda", index)) for index in models]
    assert names[0] == names[1] and len({generator_name(CPU), *names}) == 4
    monkeypatch.setattr(torch, "__version__", "9.9.9+cu999")
    assert generator_name(CPU) == "torch-9.9.9-cpu-normal-v3"
