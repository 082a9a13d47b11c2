"""Engine against the bare loop: same encoder, same batch, same cores, one run.

`python tests/benchmarks/engine.py [--shape vit-s32 | vit-b32]`.

The bare loop encodes a fixed batch again and again: no noise, no statistics, no decoding. The engine does all of its
work, with adaptive targets on. Both use all cores, the bare loop once with torch's own threads (one batch on all cores)
and once like the engine (a batch a core). Rounds alternate, so that a machine that slows down slows both.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from smoothcert.datasets import Pair
from smoothcert.encoders import Encoder
from smoothcert.engine import DecodeAhead, Engine, Texts
from smoothcert.job import CertifySection

PASSES = 1063
"""Of one pair: 63 pilot draws and 1,000 fresh ones."""
WIDTHS = {"vit-s32": 384, "vit-b32": 768}


class RandomViT(Encoder):
    """A CLIP vision tower with random weights, of 12 layers, at 224 x 224 in patches of 32."""

    def __init__(self, shape: str) -> None:
        torch.manual_seed(0)
        width = WIDTHS[shape]
        config = CLIPVisionConfig(
            hidden_size=width, intermediate_size=4 * width, num_hidden_layers=12,
            num_attention_heads=width // 64, image_size=224, patch_size=32, projection_dim=512,
        )  # fmt: skip
        self._model = CLIPVisionModelWithProjection(config)
        super().__init__(
            name=f"random-{shape}",
            digest="0" * 64,
            feature_dim=512,
            input_size=(224, 224),
            modules=[self._model],
        )

    def prepare(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image.convert("RGB").resize((224, 224)), dtype=np.uint8).transpose(2, 0, 1)

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._model(pixel_values=(pixels - 0.45) / 0.27).image_embeds

    def _text_features(self, texts: object) -> torch.Tensor:
        raise NotImplementedError("no texts in this benchmark")


def pairs() -> Iterator[tuple[str, Pair]]:
    rng = np.random.default_rng(0)
    number = 0
    while True:
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(buffer, "JPEG")
        yield "u", Pair(f"pair-{number}", "memory", buffer.getvalue(), ("x",), None, None)
        number += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(WIDTHS), default="vit-s32")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--chunk", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of one measurement")
    options = parser.parse_args()
    cores = torch.get_num_threads()
    encoder = RandomViT(options.shape)
    batch = torch.rand(options.slots * options.chunk, 3, 224, 224)
    certify = CertifySection(
        sigma=0.25, max_draws=1000,
        targets=(
            {"certificate": "angular", "cosine": 0.9, "radius": 0.25},
            {"certificate": "fcsb", "cosine": 0.9, "radius": 0.25},
        ),
    )  # fmt: skip
    engine = Engine(encoder, certify, Texts(), slots=options.slots, chunk=options.chunk)
    feed = DecodeAhead(pairs(), encoder, depth=2 * options.slots, max_pixels=10**8)
    steps = engine.steps(feed)
    pool = ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,))
    parts = batch.chunk(cores)

    @torch.no_grad()
    def bare_all_cores() -> int:
        encoder.encode_images(batch)
        return len(batch)

    @torch.no_grad()
    def encode(part: torch.Tensor) -> None:
        with torch.no_grad():
            encoder.encode_images(part)

    def bare_core_each() -> int:
        list(pool.map(encode, parts))
        return len(batch)

    def engine_step() -> int:
        before = engine.draws_done
        next(steps)
        return engine.draws_done - before

    def rate(work: Callable[[], int], seconds: float) -> tuple[float, float]:
        """Draws per second, and processor milliseconds per draw (what a shared machine disturbs least)."""
        done, started, used = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - started < seconds:
            done += work()
        return done / (time.perf_counter() - started), 1e3 * (time.process_time() - used) / done

    for work in (bare_all_cores, bare_core_each, engine_step):
        rate(work, 2.0)
    rates: dict[str, list[tuple[float, float]]] = {
        "bare, one batch on all cores": [],
        "bare, a batch a core": [],
        "engine": [],
    }
    for _ in range(options.rounds):
        for name, work in zip(rates, (bare_all_cores, bare_core_each, engine_step), strict=True):
            rates[name].append(rate(work, options.seconds))
    for name, values in rates.items():
        draws, cpu = ([value[i] for value in values] for i in (0, 1))
        print(
            f"{name:28s} {statistics.median(draws):7.1f} draws/s (min {min(draws):.1f}, max {max(draws):.1f}), "
            f"{statistics.median(cpu):6.2f} CPU ms a draw (min {min(cpu):.2f})"
        )
    cpu = statistics.median(value[1] for value in rates["bare, a batch a core"])
    print(
        f"{PASSES:,} passes, as of one pair, take {PASSES * cpu / 1e3:.1f} CPU s of the bare loop, a batch a core"
    )
    for name in list(rates)[:2]:
        wall = [e[0] / b[0] for e, b in zip(rates["engine"], rates[name], strict=True)]
        cpu = [b[1] / e[1] for e, b in zip(rates["engine"], rates[name], strict=True)]
        print(
            f"engine / {name:28s} draws/s median {statistics.median(wall):.3f} (min {min(wall):.3f}, max "
            f"{max(wall):.3f}); draws per CPU second median {statistics.median(cpu):.3f} (max {max(cpu):.3f})"
        )
    feed.close()
    engine.close()


if __name__ == "__main__":
    main()
