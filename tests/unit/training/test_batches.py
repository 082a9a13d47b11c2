"""What a step sees: every image once an epoch, keyed noise, a held-out split that depends on names alone."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from smoothcert.job import TrainSection
from smoothcert.training.batches import training_batch, validation_batch
from smoothcert.training.examples import Examples, is_held_out

COUNT = 12
SECTION = TrainSection(out="nowhere", batch=4)


def examples() -> Examples:
    """Image i is i everywhere."""
    pixels = torch.arange(COUNT, dtype=torch.uint8).view(-1, 1, 1, 1).expand(COUNT, 3, 8, 8).contiguous()
    return Examples(pixels, torch.arange(COUNT), tuple(f"p#{i}" for i in range(COUNT)))


def test_each_image_is_seen_once_an_epoch_in_another_order_each_time() -> None:
    orders = []
    for epoch in range(3):
        seen = [training_batch(examples(), SECTION, (0.1, 0.2), "s", 3 * epoch + i).classes for i in range(3)]
        orders.append(torch.cat(seen).tolist())
        assert sorted(orders[-1]) == list(range(COUNT))
    assert orders[0] != orders[1] != orders[2]


def test_a_batch_is_a_function_of_seed_stage_and_position() -> None:
    first = training_batch(examples(), SECTION, (0.1, 0.2), "s", 5)
    again = training_batch(examples(), SECTION, (0.1, 0.2), "s", 5)
    assert torch.equal(first.noise, again.noise) and torch.equal(first.sigma, again.sigma)
    for stage, position, seed in (("s", 6, 0), ("t", 5, 0), ("s", 5, 1)):
        section = SECTION.model_copy(update={"seed": seed})
        other = training_batch(examples(), section, (0.1, 0.2), stage, position)
        assert not torch.equal(first.noise, other.noise)
    held = validation_batch(examples(), slice(0, 4), (0.1, 0.2), "s", 0)
    assert torch.equal(held.noise, validation_batch(examples(), slice(0, 4), (0.1, 0.2), "s", 0).noise)
    assert held.classes.tolist() == [0, 1, 2, 3]


def test_noise_is_standard_and_levels_fill_their_range() -> None:
    """Kolmogorov-Smirnov at p > 1e-4 for fixed seeds: decided once, never by chance."""
    batches = [training_batch(examples(), SECTION, (0.1, 0.3), "s", i) for i in range(60)]
    noise = torch.cat([batch.noise.flatten() for batch in batches]).numpy()
    levels = torch.cat([batch.sigma for batch in batches]).numpy()
    assert stats.kstest(noise, "norm").pvalue > 1e-4
    assert stats.kstest(levels, stats.uniform(0.1, 0.2).cdf).pvalue > 1e-4
    batch = batches[0]
    noisy = batch.images + batch.noise * batch.sigma.view(-1, 1, 1, 1)
    np.testing.assert_allclose(batch.noisy, noisy, atol=1e-6)


def test_augmented_images_stay_images_and_differ() -> None:
    section = SECTION.model_copy(update={"augment": True})
    plain, moved = (training_batch(examples(), each, (0.1, 0.2), "s", 0) for each in (SECTION, section))
    assert torch.equal(plain.classes, moved.classes)
    assert float(moved.images.min()) >= 0 and float(moved.images.max()) <= 1
    assert not torch.allclose(plain.images, moved.images)


def test_the_held_out_share_is_met_and_follows_names_alone() -> None:
    """Of 4,000 names: the count is within 6 standard deviations of the share (false failure 2e-9)."""
    names = [f"a.parquet#{i}" for i in range(4000)]
    held = [is_held_out(name, 0.2) for name in names]
    assert abs(sum(held) - 800) < 6 * np.sqrt(4000 * 0.2 * 0.8)
    assert all(is_held_out(name, 0.3) for name, out in zip(names, held, strict=True) if out)
