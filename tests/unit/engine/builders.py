"""Builders of small feeds and encoders with exact answers. Loaded by tests through runpy as ``make``."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from smoothcert.datasets import Pair
from smoothcert.encoders import Encoder, KnownEncoder
from smoothcert.engine import DecodeAhead, DecodedPair, Engine, Measurement, PairResult, Texts
from smoothcert.job import CertifySection

SIZE = (4, 4)
MARK = 255
"""Grey level of images that ``Touchy`` misbehaves on; all others stay below 160."""


def pixels(count: int, seed: int = 0) -> np.ndarray:
    """(count, 3, H, W) uint8, none of them marked."""
    return np.random.default_rng(seed).integers(0, 160, (count, 3, *SIZE), dtype=np.uint8)


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(stream, "png")
    return stream.getvalue()


def pair(number: int, image: np.ndarray, caption: str = "a caption") -> Pair:
    return Pair(f"data#{number}", "data", png(image), (caption,), None, None)


def pairs(images: np.ndarray, captions: Sequence[str] | None = None) -> list[tuple[str, Pair]]:
    """(token, pair) as a reader would yield them, three pairs to a token."""
    return [
        (f"u{i // 3}", pair(i, image, captions[i] if captions else "a caption"))
        for i, image in enumerate(images)
    ]


def section(**changes: Any) -> CertifySection:
    return CertifySection.model_validate(
        {"sigma": 0.5, "alpha": 0.05, "pilot_draws": 15, "max_draws": 50, "radii": (0.1, 0.25, 0.5)} | changes
    )


class Ready:
    """A feed whose next pair is always decoded already, however slow this machine is."""

    def __init__(self, feed: DecodeAhead) -> None:
        self._feed = feed

    def take(self, *, block: bool) -> DecodedPair | None:
        return self._feed.take(block=True)

    @property
    def exhausted(self) -> bool:
        return self._feed.exhausted


def run(
    encoder: Encoder,
    certify: CertifySection,
    feed: Iterable[tuple[str, Pair]],
    texts: Texts | None = None,
    ready: bool = False,
    **shape: Any,
) -> list[PairResult]:
    """All outcomes of an engine over a feed, in the order in which they come."""
    engine = Engine(encoder, certify, texts or Texts(), **({"slots": 4, "chunk": 8, "lanes": 1} | shape))
    source = DecodeAhead(feed, encoder, max_pixels=10_000)
    try:
        return list(engine.run(Ready(source) if ready else source))  # type: ignore[arg-type]  # same contract
    finally:
        source.close()
        engine.close()


def measured(outcomes: Iterable[PairResult]) -> dict[str, Measurement]:
    """By pair id; asserts that nothing failed."""
    found = {}
    for outcome in outcomes:
        assert isinstance(outcome, Measurement), outcome
        assert outcome.pair.pair_id not in found
        found[outcome.pair.pair_id] = outcome
    return found


class Touchy(Encoder):
    """KnownEncoder's features, except on marked images, where it does what ``deed`` does.

    Counts its calls, and how many images each had.
    """

    def __init__(self, known: KnownEncoder, deed: Any = None) -> None:
        super().__init__(
            name="touchy", digest="t" * 64, feature_dim=known.feature_dim, input_size=known.input_size
        )
        self._known = known
        self._deed = deed
        self.calls: list[int] = []

    def prepare(self, image: Image.Image) -> np.ndarray:
        return self._known.prepare(image)

    def _image_features(self, batch: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(batch))
        features = self._known.encode_images(batch)
        marked = batch.flatten(1).mean(1) > 0.8
        if self._deed is not None and marked.any():
            return self._deed(features, marked)
        return features

    def _text_features(self, texts: Sequence[str]) -> torch.Tensor:
        return self._known.encode_texts(texts)
