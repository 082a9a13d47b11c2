"""The text features that certificates refer to: classes, the retrieval pool, and each pair's own captions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from smoothcert.encoders import Encoder
from smoothcert.engine.read_texts import describe_cut, same_class
from smoothcert.errors import EncoderError
from smoothcert.job import ZeroShotSection

_BATCH = 256
_CACHED_CAPTIONS = 4096
_SAME = 1e-5
"""Distance up to which two text features count as one: some hundred roundings of float32."""


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

    @cached_property
    def rough_classes(self) -> NDArray[np.float32]:
        """(C, d) class features in float32, for choices alone."""
        return self.class_features.astype(np.float32)

    @cached_property
    def rough_pool(self) -> NDArray[np.float32]:
        """(N, d) those of the pool."""
        return self.pool_features.astype(np.float32)


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
        EncoderError: a text has no finite unit feature, two classes have the same feature, or all captions of
            the pool have.
    """
    labels: tuple[str, ...] = ()
    class_features = np.empty((0, encoder.feature_dim))
    if zero_shot is not None:
        labels = zero_shot.labels
        prompts = [text.replace("{label}", label) for label in labels for text in zero_shot.prompts]
        each = features_of(encoder, prompts).reshape(len(labels), len(zero_shot.prompts), -1)
        class_features = _unit(each.mean(axis=1), labels)
        if (pair := _find_same(class_features)) is not None:
            raise same_class(labels[pair[0]], labels[pair[1]])
    pool_features = _unit(features_of(encoder, pool), pool) if pool else np.empty((0, encoder.feature_dim))
    if len(pool) > 1 and (np.linalg.norm(pool_features - pool_features[0], axis=1) <= _SAME).all():
        raise EncoderError(
            f"all {len(pool)} captions of the retrieval pool have the same text feature, so no rank can be certified",
            remedy="use an encoder whose text tower tells them apart",
        )
    return Texts(labels, class_features, tuple(pool), pool_features, retrieval_k, captions)


def _find_same(features: NDArray[np.float64]) -> tuple[int, int] | None:
    """Indices of two rows that are the same up to rounding, or None.

    Such rows are neighbours, or nearly, on every line: only those are compared that are close on one.
    """
    line = np.random.default_rng(0).standard_normal(features.shape[1])
    places = features @ (line / np.linalg.norm(line))
    order = np.argsort(places, kind="stable")
    for position, index in enumerate(order):
        for other in order[position + 1 :]:
            if places[other] - places[index] > _SAME:
                break
            if np.linalg.norm(features[other] - features[index]) <= _SAME:
                return (min(int(index), int(other)), max(int(index), int(other)))
    return None


def features_of(encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float64]:
    """Unit features (k, d) in float64, encoded in batches; the caller checks that they are finite."""
    batches = [encoder.encode_texts(texts[i : i + _BATCH]) for i in range(0, len(texts), _BATCH)]
    return torch.cat(batches).to(torch.float64).cpu().numpy()


def _unit(features: NDArray[np.float64], texts: Sequence[str]) -> NDArray[np.float64]:
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    for index in np.flatnonzero(~(norms[:, 0] > 1e-6)):
        raise EncoderError(
            f"the text {texts[int(index)]!r} has no finite feature direction", remedy="reword it or remove it"
        )
    unit: NDArray[np.float64] = features / norms
    return unit


class CaptionFeatures:
    """Caption features of pairs, with a small cache (datasets repeat captions).

    The reference of a pair with several captions is the normalised mean of their unit features.

    Attributes:
        pairs: how many pairs were asked for.
        cut_pairs: those among them with a caption that is longer than the encoder reads.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._cache: OrderedDict[tuple[str, ...], tuple[NDArray[np.float64], bool]] = OrderedDict()
        self.pairs = 0
        self.cut_pairs = 0

    def of(self, captions: Sequence[tuple[str, ...]]) -> list[NDArray[np.float64]]:
        """One (d,) float64 unit vector per pair; NaN where the texts have no direction."""
        for group in dict.fromkeys(captions):
            if group not in self._cache:
                # each pair's by themselves: beside others a feature may round differently, and who comes beside whom
                # is a matter of time
                mean = features_of(self._encoder, group).mean(axis=0)
                norm = np.linalg.norm(mean)
                unit = mean / norm if norm > 1e-6 else np.full_like(mean, np.nan)
                self._cache[group] = (unit, any(text.cut for text in self._encoder.read_texts(group)))
        found = [self._cache[c] for c in captions]
        self.pairs += len(found)
        self.cut_pairs += sum(cut for _, cut in found)
        for group in captions:
            self._cache.move_to_end(group)
        while len(self._cache) > _CACHED_CAPTIONS:
            self._cache.popitem(last=False)
        return [feature for feature, _ in found]

    def describe_cut(self) -> str | None:
        """A sentence about the pairs whose captions were cut so far; None where there are none."""
        if not self.cut_pairs:
            return None
        return describe_cut(self._encoder, self.cut_pairs, self.pairs, "pairs have captions that")
