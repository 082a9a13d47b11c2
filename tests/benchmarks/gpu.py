"""What a GPU reaches, in one command: python tests/benchmarks/gpu.py.

For the shapes of ViT-B/32 and ViT-L/14 (random weights, bfloat16), without and with torch.compile, it prints the
draws a second of the bare loop (the encoder on one fixed batch again and again) and of the engine (decoding, noise,
statistics and targets included), both as a share of what the device's matrix products reach, and what noise and
decoding take. Target: an engine at 97% of the bare loop. Where there is no GPU it says so and ends. The same code on a
CPU, with a toy's shape: python tests/benchmarks/gpu.py --device cpu --tiny
"""

from __future__ import annotations

import argparse
import io
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from smoothcert.datasets import Pair
from smoothcert.encoders import Encoder
from smoothcert.engine import DecodeAhead, Engine, Texts
from smoothcert.engine.decoding import DecodedPair
from smoothcert.engine.noise import NoiseSource, Stream
from smoothcert.job import CertifySection

UNSYNCHRONISED = 8
"""Calls of the bare loop between two waits for the device."""


@dataclass(frozen=True)
class Shape:
    """A vision tower, and the batch that it is given."""

    name: str
    hidden: int
    layers: int
    heads: int
    patch: int
    image: int
    projection: int
    slots: int
    chunk: int
    matmul: int
    """Edge of the square matrices that measure the device."""


SHAPES = (
    Shape("ViT-B/32", 768, 12, 12, 32, 224, 512, 32, 32, 8192),
    Shape("ViT-L/14", 1024, 24, 16, 14, 224, 768, 16, 32, 8192),
)
TINY = (Shape("tiny", 64, 2, 4, 8, 32, 32, 4, 8, 256),)
DTYPE = torch.bfloat16


class RandomTower(Encoder):
    """A CLIP vision tower with random weights."""

    def __init__(
        self, shape: Shape, device: torch.device, *, compiled: bool = False, attention: str = "sdpa"
    ) -> None:
        torch.manual_seed(0)
        config = CLIPVisionConfig(
            hidden_size=shape.hidden, intermediate_size=4 * shape.hidden, num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads, image_size=shape.image, patch_size=shape.patch,
            projection_dim=shape.projection, attn_implementation=attention,
        )  # fmt: skip
        model = CLIPVisionModelWithProjection(config).to(device, DTYPE)
        self._tower = torch.compile(self._embed, dynamic=False) if compiled else self._embed
        self._model = model
        super().__init__(
            name=shape.name,
            digest="0" * 64,
            feature_dim=shape.projection,
            input_size=(shape.image, shape.image),
            device=device,
            dtype=DTYPE,
            modules=[model],
        )

    def prepare(self, image: Image.Image) -> np.ndarray:
        size = self.input_size[::-1]
        return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC)).transpose(2, 0, 1)

    def _embed(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._model(pixel_values=((pixels - 0.45) / 0.27).to(DTYPE)).image_embeds

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._tower(pixels)

    def _text_features(self, texts: object) -> torch.Tensor:
        raise NotImplementedError("no texts in this benchmark")


class TimedFeed(DecodeAhead):
    """Counts the seconds for which the engine waits for pixels."""

    waited_s = 0.0

    def take(self, *, block: bool) -> DecodedPair | None:
        started = time.perf_counter()
        pair = super().take(block=block)
        if block:
            self.waited_s += time.perf_counter() - started
        return pair


def photographs(count: int = 16) -> list[bytes]:
    """JPEG files of 500 x 375 pixels, smooth like photographs."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def pairs(files: list[bytes]) -> Iterator[tuple[str, Pair]]:
    for number in itertools.count():
        yield "u", Pair(f"pair-{number}", "memory", files[number % len(files)], ("x",), None, None)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rate(work: Callable[[], int], seconds: float, device: torch.device) -> float:
    """Units of work a second; ``work`` returns how many it did."""
    wait(device)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        done += work()
    wait(device)
    return done / (time.perf_counter() - started)


def matmul_rate(shape: Shape, seconds: float, device: torch.device) -> float:
    """Floating point operations a second of one large product in DTYPE."""
    left = torch.randn(shape.matmul, shape.matmul, device=device, dtype=DTYPE)
    right = torch.randn_like(left)
    out = torch.empty_like(left)

    def multiply() -> int:
        for _ in range(UNSYNCHRONISED):
            torch.mm(left, right, out=out)
        wait(device)
        return UNSYNCHRONISED

    multiply()
    return 2.0 * shape.matmul**3 * rate(multiply, seconds, device)


@torch.no_grad()
def flops_per_draw(shape: Shape) -> float:
    """Floating point operations of one image, counted on the CPU; fused attention would not be counted."""
    tower = RandomTower(shape, torch.device("cpu"), attention="eager")
    with FlopCounterMode(display=False) as counter:
        tower.encode_images(torch.rand(1, 3, shape.image, shape.image))
    return float(counter.get_total_flops())


@dataclass(frozen=True)
class Measured:
    """One line of the table."""

    bare: float
    engine: float
    noise_share: float
    decode_ms: float
    waited_share: float


def measure(
    shape: Shape, device: torch.device, *, compiled: bool, seconds: float, rounds: int, threads: int
) -> Measured:
    """Measure one shape: bare loop and engine in turn, then noise and decoding alone."""
    encoder = RandomTower(shape, device, compiled=compiled)
    certify = CertifySection(
        sigma=0.25, max_draws=1000,
        targets=(
            {"certificate": "angular", "cosine": 0.9, "radius": 0.25},
            {"certificate": "fcsb", "cosine": 0.9, "radius": 0.25},
        ),
    )  # fmt: skip
    files = photographs()
    engine = Engine(encoder, certify, Texts(), slots=shape.slots, chunk=shape.chunk)
    feed = TimedFeed(pairs(files), encoder, threads=threads, depth=2 * shape.slots, max_pixels=10**8)
    steps = engine.steps(feed)
    # the engine works on half a batch at a time on an accelerator: the bare loop gets the same
    lanes = 2 if device.type != "cpu" else 1
    size = shape.slots * shape.chunk // lanes
    batch = torch.rand(size, 3, shape.image, shape.image, device=device)

    @torch.no_grad()
    def bare() -> int:
        for _ in range(UNSYNCHRONISED):
            encoder.encode_images(batch)
        wait(device)
        return UNSYNCHRONISED * size

    def engine_step() -> int:
        before = engine.draws_done
        next(steps)
        return engine.draws_done - before

    noise = NoiseSource(certify.sigma, 0, device)
    noisy = torch.zeros(shape.slots, shape.chunk, 3, shape.image, shape.image, device=device)
    pixels = torch.zeros(shape.slots, 3, shape.image, shape.image, dtype=torch.uint8, device=device)
    chunks = itertools.count()

    @torch.no_grad()
    def draw_noise() -> int:
        chunk = next(chunks)
        noise.fill(noisy, pixels, [(slot, "pair", Stream.CERTIFY, chunk) for slot in range(shape.slots)])
        return shape.slots * shape.chunk

    for work in (bare, engine_step, draw_noise):
        rate(work, seconds / 4, device)
    feed.waited_s = 0.0
    rates = [
        (
            rate(bare, seconds, device),
            rate(engine_step, seconds, device),
            rate(draw_noise, seconds / 4, device),
        )
        for _ in range(rounds)
    ]
    waited = feed.waited_s
    feed.close()
    engine.close()
    bare_rate, engine_rate, noise_rate = (statistics.median(each) for each in zip(*rates, strict=True))
    started = time.process_time()
    for file in files:
        encoder.prepare(Image.open(io.BytesIO(file)))
    decode_ms = 1e3 * (time.process_time() - started) / len(files)
    return Measured(bare_rate, engine_rate, engine_rate / noise_rate, decode_ms, waited / (rounds * seconds))


def print_line(shape: Shape, how: str, found: Measured, flops: float, peak: float) -> None:
    print(
        f"{shape.name:9s} {how:9s} {found.bare:10,.0f} {found.bare * flops / peak:7.1%} {found.engine:10,.0f} "
        f"{found.engine * flops / peak:7.1%} {found.engine / found.bare:7.1%} {found.noise_share:7.1%} "
        f"{found.decode_ms:8.2f} {found.waited_share:7.1%}",
        flush=True,
    )


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu")
    parser.add_argument("--tiny", action="store_true", help="one shape for toys, to try this program")
    parser.add_argument("--compile", choices=("both", "no", "yes"), default="both")
    parser.add_argument("--seconds", type=float, default=5.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=4, help="that decode ahead")
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(
            "skipped: torch sees no GPU here. On a machine with one: python tests/benchmarks/gpu.py; to try the "
            "program itself: --device cpu --tiny"
        )
        return
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    shapes = TINY if options.tiny else SHAPES
    peak = matmul_rate(shapes[0], options.seconds, device)
    print(f"{name}, torch {torch.__version__}, bfloat16; matrix products reach {peak / 1e12:,.4g} TFLOP/s")
    print(
        "shape     compile   bare loop  share     engine  share  engine/   noise   decode  waits\n"
        "                      draws/s of mm     draws/s of mm     bare of step  ms/pair for it"
    )
    ways = {"both": (False, True), "no": (False,), "yes": (True,)}[options.compile]
    failed = False
    for shape in shapes:
        flops = flops_per_draw(shape)
        print(f"{shape.name}: {flops / 1e9:.7g} GFLOP a draw, batch {shape.slots} x {shape.chunk}")
        for compiled in ways:
            how = "compiled" if compiled else "eager"
            try:
                found = measure(
                    shape,
                    device,
                    compiled=compiled,
                    seconds=options.seconds,
                    rounds=options.rounds,
                    threads=options.threads,
                )
            except Exception as exc:
                failed = True
                print(f"{shape.name:9s} {how:9s} failed: {type(exc).__name__}: {str(exc).splitlines()[0]}")
                continue
            print_line(shape, how, found, flops, peak)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
