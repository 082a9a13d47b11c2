"""What an attack wants of a batch of pairs, as one encoder sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from smoothcert.attacks import Objective, ObjectiveInputs, Subject, TextReferences, build_objective
from smoothcert.attacks.noise import NoiseKey
from smoothcert.datasets import Pair
from smoothcert.encoders import Encoder
from smoothcert.engine import Texts
from smoothcert.engine.texts import CaptionFeatures, features_of
from smoothcert.errors import JobError
from smoothcert.job.attacks import AttackSection
from smoothcert.work.attack.inputs import AttackInputs


@dataclass(frozen=True, slots=True)
class ReadyPair:
    """A pair whose canonical input is at hand.

    Attributes:
        pair: without image bytes.
        pixels: uint8 (3, H, W), the canonical input times 255.
    """

    pair: Pair
    pixels: NDArray[np.uint8]


class Goal:
    """The objective of an attack in one encoder's space, and the texts that outcomes are compared with.

    Args:
        section: the attack.
        encoder: whose features are meant.
        inputs: texts and targets.

    Raises:
        JobError: the target image cannot be read.
        EncoderError: the objective needs texts, and the encoder has no text space.
    """

    def __init__(self, section: AttackSection, encoder: Encoder, inputs: AttackInputs) -> None:
        self._section = section
        self._encoder = encoder
        self._inputs = inputs
        self._captions = CaptionFeatures(encoder)
        self._target_image = self._target = None
        if section.target_image is not None:
            self._target_image = inputs.target_image(section.target_image, encoder)
            with torch.no_grad():
                self._target = encoder.encode_images(self._target_image[None])
        if section.target_caption is not None:
            self._target = self._tensor(features_of(encoder, [section.target_caption]))

    def reference(
        self, pairs: Sequence[ReadyPair], images: torch.Tensor, subject: Subject, draws: int
    ) -> torch.Tensor | None:
        """The subject's features (B, d) of the clean images, where that is what the objective leaves.

        Means of draws that neither certify nor judge; NaN where the encoder gave any.

        Args:
            pairs: the pairs.
            images: their canonical inputs, float32 (B, 3, H, W) in [0,1].
            subject: what is searched or judged, with this goal's encoder.
            draws: a pair, where the subject is random.
        """
        if self._section.reference not in ("smoothed", "predicted"):
            return None
        means = []
        for ready, image in zip(pairs, images, strict=True):
            key = NoiseKey(self._section.seed, ready.pair.pair_id, "attack", ("reference",))
            features = torch.cat(list(subject.draws(image, key, draws)))
            means.append(features.mean(dim=0, dtype=torch.float64))
        return torch.stack(means).float()

    def classes_left(self, pairs: Sequence[ReadyPair], reference: torch.Tensor | None) -> tuple[int, ...]:
        """The class that each pair is to leave: that of its reference, or its label; empty if no class is left."""
        if self._section.objective != "classification":
            return ()
        texts = self._inputs.texts(self._encoder)
        if reference is None:
            return tuple(texts.labels.index(ready.pair.label or "") for ready in pairs)
        logits = reference @ self._tensor(texts.class_features).T
        return tuple(int(number) for number in logits.argmax(dim=1))

    def objective(
        self,
        pairs: Sequence[ReadyPair],
        images: torch.Tensor,
        reference: torch.Tensor | None = None,
        classes_left: Sequence[int] = (),
    ) -> Objective:
        """The objective of a batch.

        Args:
            pairs: the pairs.
            images: their canonical inputs, float32 (B, 3, H, W) in [0,1].
            reference: of ``reference``.
            classes_left: of ``classes_left``.

        Raises:
            JobError: the source or the job lacks what it needs.
        """
        section = self._section
        if section.reference == "smoothed" and reference is not None:
            clean = reference
        else:
            with torch.no_grad():
                clean = torch.cat([self._encoder.encode_images(image[None]) for image in images])
        captions = labels = classes = pool = rivals = None
        if section.objective in ("caption", "retrieval") or section.target_caption is not None:
            known = [each for each in self._own_captions(pairs) if each is not None]
            if len(known) < len(pairs):
                raise JobError(
                    f"objective '{section.objective}' needs captions, but a pair has none",
                    remedy="remove such pairs, or choose another objective",
                )
            captions = self._tensor(np.stack(known))
        if section.objective == "classification":
            labels = torch.tensor(list(classes_left), device=self._encoder.device)
            classes = self._tensor(self._inputs.texts(self._encoder).class_features)
        if section.objective == "retrieval":
            texts = self._inputs.texts(self._encoder)
            pool = self._tensor(texts.pool_features)
            own = np.stack(_own(pairs, texts))
            rivals = torch.from_numpy(~own).to(self._encoder.device)
        inputs = ObjectiveInputs(
            clean=clean,
            captions=captions,
            labels=labels,
            class_features=classes,
            targets=None if self._target is None else self._target.expand(len(pairs), -1),
            target_images=None
            if self._target_image is None
            else self._target_image.expand(len(pairs), -1, -1, -1),
            targets_are_captions=section.target_caption is not None,
            pool=pool,
            rivals=rivals,
        )
        k = self._inputs.texts(self._inputs.certified).retrieval_k
        return build_objective(section.objective, inputs, threshold=section.resolved_threshold, k=k)

    def references(
        self, pairs: Sequence[ReadyPair], labels: Sequence[str | None], voted: Sequence[str | None]
    ) -> TextReferences:
        """The texts of a batch, for judging, and the percentile that is asked about.

        Args:
            pairs: the pairs.
            labels: the class that each pair's certificate is about; None where there is none.
            voted: the same of the certificate of the vote.
        """
        known, percentile = self._inputs.texts(self._inputs.certified), self._inputs.percentile
        if not (known.labels or known.pool_captions or known.captions):
            return TextReferences(percentile=percentile)
        texts = self._inputs.texts(self._encoder)
        return TextReferences(
            classes=texts.class_features if texts.labels else None,
            labels=_numbers(labels, texts),
            voted=_numbers(voted, texts),
            captions=tuple(self._own_captions(pairs)) if texts.captions else (),
            pool=texts.pool_features if texts.pool_captions else None,
            own=tuple(_own(pairs, texts)),
            k=texts.retrieval_k,
            percentile=percentile,
        )

    def _own_captions(self, pairs: Sequence[ReadyPair]) -> list[NDArray[np.float64] | None]:
        found = iter(self._captions.of([ready.pair.captions for ready in pairs if ready.pair.captions]))
        return [next(found) if ready.pair.captions else None for ready in pairs]

    def _tensor(self, features: NDArray[np.float64]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)).to(self._encoder.device)


def _numbers(labels: Sequence[str | None], texts: Texts) -> tuple[int | None, ...]:
    return tuple(texts.labels.index(label) if label in texts.labels else None for label in labels)


def _own(pairs: Sequence[ReadyPair], texts: Texts) -> list[NDArray[np.bool_]]:
    """For each pair, which candidates of the pool are its own captions."""
    return [
        np.array([text in ready.pair.captions for text in texts.pool_captions], dtype=bool) for ready in pairs
    ]
