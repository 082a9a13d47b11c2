"""The engine on a GPU, where there is one: its noise, its streams, its clock."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import kstest

from smoothcert.datasets import Pair
from smoothcert.encoders.loading import load_encoder
from smoothcert.engine import DecodeAhead, Engine, Failure, Measurement, Texts
from smoothcert.engine.busy import BusyTime
from smoothcert.engine.noise import NoiseSource, NormalStream, Stream, noise_key
from smoothcert.job import CertifySection, EncoderSection

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")

CUDA = torch.device("cuda")
PAIRS, CHUNK = 40, 16
ROUNDING = 2e-5
"""Features of float32 matrix products in other batches."""


@pytest.fixture(scope="module")
def encoder():
    return load_encoder(EncoderSection(model="bundled:digits-clip", device="cuda"))


@pytest.fixture(scope="module")
def images(encoder):
    height, width = encoder.input_size
    return np.random.default_rng(0).integers(0, 256, (PAIRS, height, width, 3), dtype=np.uint8)


def section(**changes):
    return CertifySection(
        **({"sigma": 0.25, "pilot_draws": 21, "max_draws": 100, "radii": (0.1, 0.25)} | changes)
    )


def pairs(images, broken=()):
    for number, image in enumerate(images):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "png")
        data = b"no image" if number in broken else stream.getvalue()
        yield "u", Pair(f"p{number}", "memory", data, ("a digit",), None, None)


def run(encoder, images, certify, texts=None, broken=(), **shape):
    engine = Engine(encoder, certify, texts or Texts(), **({"slots": 8, "chunk": CHUNK} | shape))
    feed = DecodeAhead(pairs(images, broken), encoder, max_pixels=10**6)
    started = time.perf_counter()
    try:
        return list(engine.run(feed)), engine.busy.seconds, time.perf_counter() - started
    finally:
        feed.close()
        engine.close()


def test_noise_is_a_function_of_its_key():
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, device=CUDA)
    source = NoiseSource(0.5, 7, CUDA)
    one, other = (torch.zeros(4, 8, 3, 32, 32, device=CUDA) for _ in range(2))
    source.fill(one, pixels, [(slot, f"p{slot}", Stream.CERTIFY, 3) for slot in range(4)])
    source.fill(other, pixels, [(slot, f"p{slot}", Stream.CERTIFY, 3) for slot in (2, 0)])
    assert torch.equal(one[[0, 2]], other[[0, 2]]) and not other[[1, 3]].any()
    grey = one * 255.0 - pixels[:, None]
    on_grid = torch.round(grey.double() * 256.0)
    assert float((grey.double() * 256.0 - on_grid).abs().max()) < 0.02  # a multiple of 1/256, times 255 / 255
    # p-value below 1e-6 in one run of a million
    assert kstest((on_grid / 256.0 / 127.5).flatten().cpu().numpy(), "norm").pvalue > 1e-6


def by_hand(encoder, image, pair_id, certify):
    """Scores along pilot direction and clean feature, one chunk after the other on the default stream."""

    def features(stream, count, clean):
        found = []
        chunk = 0
        while sum(map(len, found)) < count:
            numbers = torch.empty(CHUNK, *image.shape, device=CUDA)
            NormalStream(noise_key(certify.seed, pair_id, stream, chunk), CUDA).fill(numbers)
            noise = torch.round(numbers.double() * certify.sigma * 255.0 * 256.0) / 256.0
            x = (torch.from_numpy(image).to(CUDA).double() + noise) / 255.0
            if clean and chunk == 0:
                x[0] = torch.from_numpy(image).to(CUDA).double() / 255.0
            with torch.no_grad():
                each = encoder.encode_images(x.float()).double()
            found.append((each / each.norm(dim=1, keepdim=True)).cpu().numpy())
            chunk += 1
        return np.concatenate(found)[:count]

    pilot = features(Stream.PILOT, certify.pilot_draws + 1, True)
    fresh = features(Stream.CERTIFY, certify.max_draws, False)
    direction = pilot[1:].mean(axis=0)
    direction /= np.linalg.norm(direction)
    return np.stack([(1 + fresh @ direction) / 2, (1 + fresh @ pilot[0]) / 2])


@pytest.mark.parametrize("shape", [{}, {"slots": 3, "lanes": 1}, {"slots": 32}])
def test_scores_are_those_of_a_plain_loop(encoder, images, shape):
    certify = section()
    outcomes, busy, wall = run(encoder, images, certify, **shape)
    assert 0.0 < busy <= wall
    found = {each.pair.pair_id: each for each in outcomes if isinstance(each, Measurement)}
    assert len(found) == PAIRS
    for number in (0, 7, 39):
        prepared = encoder.prepare(Image.fromarray(images[number]))
        expected = by_hand(encoder, prepared, f"p{number}", certify)
        assert np.allclose(found[f"p{number}"].scores[:2], expected, atol=ROUNDING, rtol=0)


def test_targets_texts_and_moments(encoder, images):
    labels = tuple(f"digit {word}" for word in ("one", "two", "three"))
    features = encoder.encode_texts(labels).double().cpu().numpy()
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    texts = Texts(labels=labels, class_features=features)
    target = {"certificate": "angular", "cosine": 0.2, "radius": 0.05}
    certify = section(max_draws=1000, targets=(target,), second_moment=True)
    outcomes, _, _ = run(encoder, images, certify, texts, broken=(3, 20))
    failed = [each for each in outcomes if isinstance(each, Failure)]
    assert sorted(each.pair.pair_id for each in failed) == ["p20", "p3"]
    for each in outcomes:
        if isinstance(each, Measurement):
            assert each.spread is not None and 0.0 <= each.spread.eigenvalue <= 4.0
            assert len(each.spread.inside) == each.draws == each.scores.shape[1]
            assert (each.stop_reason == "decided") == (each.decisions[0] != "budget")


def test_time_of_two_streams_counts_once():
    busy = BusyTime(CUDA, 2)
    matrix = torch.randn(4096, 4096, device=CUDA)
    torch.cuda.synchronize()
    started = time.perf_counter()
    for stream in [torch.cuda.Stream(), torch.cuda.Stream()] * 20:
        with torch.cuda.stream(stream), busy.measure():
            torch.mm(matrix, matrix)
    torch.cuda.synchronize()
    wall = time.perf_counter() - started
    assert 0.3 * wall < busy.seconds <= wall * 1.001
