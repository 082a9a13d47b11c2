"""What the certificate from second moments costs (T7): a row, and a step. `python tests/benchmarks/second_moment.py`.

A row: milliseconds of a core for each pair and radius, by how many pairs are bounded together. A step: processor time
of the accumulator against that of the encoder's forward passes of the same chunk, for the bundled encoder (32 numbers a
feature) and a ViT-S/32 (512). Neither needs a quiet machine: all times are of the process, the best of several.
"""

from __future__ import annotations

import argparse
import runpy
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from smoothcert.certificates import second_moment_bound, second_moment_radius
from smoothcert.encoders import Encoder, load_encoder
from smoothcert.engine.moments import MomentTracker
from smoothcert.job import EncoderSection

RADII, COSINES = np.array([0.25, 0.5, 1.0, 1.5]), np.array([0.5, 0.8, 0.9])


def best(work: Callable[[], object], times: int) -> float:
    """Processor seconds of one call."""
    found = []
    for _ in range(times):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return min(found)


def rows(times: int) -> None:
    generator = np.random.default_rng(0)

    def row(pairs: int) -> None:
        norm = generator.uniform(0.6, 0.95, (pairs, 1))
        eigenvalue = (1 - norm**2) * generator.uniform(0.1, 0.6, (pairs, 1))
        facts, escape = (norm, eigenvalue), np.full((pairs, 1), 0.02)
        bound = best(lambda: second_moment_bound(*facts, RADII, 1.0, escape=escape), times)
        radius = best(lambda: second_moment_radius(*facts, COSINES, 1.0, escape=escape), times)
        print(
            f"{pairs:4d} pairs together: {1e3 * bound / pairs / len(RADII):6.2f} ms a pair and radius, "
            f"{1e3 * radius / pairs / len(COSINES):6.1f} ms a pair and cosine"
        )

    for pairs in (1, 8, 40, 160):
        row(pairs)


def step(encoder: Encoder, slots: int, chunk: int, times: int) -> None:
    generator = np.random.default_rng(0)
    tracker = MomentTracker(slots, encoder.feature_dim, torch.device("cpu"))
    images = torch.rand(slots * chunk, 3, *encoder.input_size)
    with torch.no_grad():
        features = encoder.encode_images(images).double().reshape(slots, chunk, -1)
        features = features + 0.01 * torch.from_numpy(generator.normal(size=tuple(features.shape)))
        features /= features.norm(dim=2, keepdim=True)
        counts = np.full(slots, chunk)
        for slot in range(slots):
            tracker.start(slot, features[slot].numpy())
        update = best(lambda: tracker.update(range(slots), features, counts), times)
        forward = best(lambda: encoder.encode_images(images), times)
    print(
        f"{encoder.name}, {encoder.feature_dim} numbers a feature, {slots} x {chunk} draws: accumulator "
        f"{1e3 * update:.2f} ms, forward passes {1e3 * forward:.1f} ms, share {update / (update + forward):.2%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows(options.times)
    step(load_encoder(EncoderSection(model="bundled:digits-clip")), 8, 16, options.times)
    vit = runpy.run_path(str(Path(__file__).with_name("engine.py")))["RandomViT"]("vit-s32")
    step(vit, 8, 16, options.times)


if __name__ == "__main__":
    main()
