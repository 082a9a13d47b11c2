"""The text features that certificates refer to: classes, the retrieval pool, and each pair's own captions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from smoothcert.encoders import Encoder
from smoothcert.errors import EncoderError
from smoothcert.job import ZeroShotSection

_BATCH = 256
_CACHED_CAPTIONS = 4096


@dataclass(frozen=True)
class Texts:
    """What stays fixed over a whole run.

    Attributes:
        labels: class names, length C (0 without zero-shot).
        class_features: (C, d) float64 unit vectors.
        pool_captions: retrieval candidates, length N (0 without retrieval).
        pool_features: (N, d) float64 unit vectors.
        retrieval_k: rank that retrieval certifies.
        captions: whether pairs' own captions are compared (the encoder has a text space).
    """

    labels: tuple[str, ...] = ()
    class_features: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    pool_captions: tuple[str, ...] = ()
    pool_features: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    retrieval_k: int = 1
    captions: bool = False


def encode_texts(
    encoder: Encoder,
    *,
    zero_shot: ZeroShotSection | None = None,
    pool: Sequence[str] = (),
    retrieval_k: int = 1,
    captions: bool = True,
) -> Texts:
    """Encode the texts of a run once.

    Args:
        encoder: the base encoder.
        zero_shot: class names and prompt templates; a class feature is the normalised mean over templates.
        pool: captions of the retrieval pool, distinct.
        retrieval_k: certified rank.
        captions: compare pairs with their own captions.

    Raises:
        EncoderError: a text has no finite unit feature, or two classes have the same feature.
    """
    labels: tuple[str, ...] = ()
    class_features = np.empty((0, encoder.feature_dim))
    if zero_shot is not None:
        labels = zero_shot.labels
        prompts = [text.replace("{label}", label) for label in labels for text in zero_shot.prompts]
        each = features_of(encoder, prompts).reshape(len(labels), len(zero_shot.prompts), -1)
        class_features = _unit(each.mean(axis=1), labels)
        _check_different(class_features, labels)
    pool_features = _unit(features_of(encoder, pool), pool) if pool else np.empty((0, encoder.feature_dim))
    return Texts(labels, class_features, tuple(pool), pool_features, retrieval_k, captions)


def _check_different(features: NDArray[np.float64], labels: Sequence[str]) -> None:
    seen: dict[bytes, str] = {}
    for label, feature in zip(labels, np.round(features, 7) + 0.0, strict=True):
        other = seen.setdefault(feature.tobytes(), label)
        if other is not label:
            raise EncoderError(
                f"the labels {other!r} and {label!r} have the same text feature, so no prediction between them can "
                "be certified",
                remedy="remove one of them, or reword the prompts so that they differ within the encoder's text length",
            )


def features_of(encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float64]:
    """Unit features (k, d) in float64, encoded in batches; the caller checks that they are finite."""
    batches = [encoder.encode_texts(texts[i : i + _BATCH]) for i in range(0, len(texts), _BATCH)]
    return torch.cat(batches).to(torch.float64).cpu().numpy()


def _unit(features: NDArray[np.float64], texts: Sequence[str]) -> NDArray[np.float64]:
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    for index in np.flatnonzero(~(norms[:, 0] > 1e-6)):
        raise EncoderError(
            f"the text {texts[int(index)]!r} has no finite feature direction", remedy="reword or remove it"
        )
    unit: NDArray[np.float64] = features / norms
    return unit


class CaptionFeatures:
    """Caption features of pairs, with a small cache (datasets repeat captions).

    The reference of a pair with several captions is the normalised mean of their unit features.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._cache: OrderedDict[tuple[str, ...], NDArray[np.float64]] = OrderedDict()

    def of(self, captions: Sequence[tuple[str, ...]]) -> list[NDArray[np.float64]]:
        """One (d,) float64 unit vector per pair; NaN where the texts have no direction."""
        missing = [c for c in dict.fromkeys(captions) if c not in self._cache]
        if missing:
            flat = [text for group in missing for text in group]
            features = features_of(self._encoder, flat)
            start = 0
            for group in missing:
                mean = features[start : start + len(group)].mean(axis=0)
                norm = np.linalg.norm(mean)
                self._cache[group] = mean / norm if norm > 1e-6 else np.full_like(mean, np.nan)
                start += len(group)
        found = [self._cache[c] for c in captions]
        for group in captions:
            self._cache.move_to_end(group)
        while len(self._cache) > _CACHED_CAPTIONS:
            self._cache.popitem(last=False)
        return found
