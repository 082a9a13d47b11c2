"""Fine-tuning of the encoder itself, to compare defences with: on noisy images, or on attacked ones.

Not the published trainings to the letter: those run for days on ImageNet. Their objectives are the same, up to unit
features (FARE anchors features before normalisation) and one budget for all images.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from smoothcert.encoders import Encoder, PretrainedEncoder
from smoothcert.errors import EncoderError
from smoothcert.job.train import AdversarySection
from smoothcert.training.adversary import worst_images
from smoothcert.training.batches import Batch
from smoothcert.training.losses import Losses
from smoothcert.training.stages import Stage


class TuningStage(Stage):
    """The image tower of an encoder, tuned.

    Args:
        tuned: the encoder that is changed; its image tower is what is fitted.
        anchor: the same as it was.
    """

    def __init__(self, tuned: Encoder, anchor: Encoder) -> None:
        if not isinstance(tuned, PretrainedEncoder):
            raise EncoderError(
                f"encoder '{tuned.name}' cannot be tuned: it is {type(tuned).__name__}, whose weights cannot be saved",
                remedy="use a model of transformers in encoder.model, or another train.method",
            )
        self.tuned = tuned
        self.module = tuned.image_tower
        self._anchor = anchor

    def features(self, pixels: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """See ``Stage.features``."""
        return self.tuned.encode_images(pixels)

    def _drift(self, images: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Squared distances (B,) of unit features to those wanted."""
        return (self.tuned.encode_images(images) - wanted).square().sum(dim=1)

    def _anchored(self, batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            return self._anchor.encode_images(batch.images)


class NoiseStage(TuningStage):
    """Features of noisy images stay where those of clean ones were."""

    name = "noise"

    def losses(self, batch: Batch) -> Losses:
        """See ``Stage.losses``."""
        return {"drift": batch.share.mean(self._drift(batch.noisy, self._anchored(batch)).mean())}


class FareStage(TuningStage):
    """Features of attacked images stay where those of clean ones were (Schlarmann et al. 2024, arXiv 2402.12336).

    Args:
        tuned: see ``TuningStage``.
        anchor: likewise.
        adversary: the attack.
    """

    name = "fare"

    def __init__(self, tuned: Encoder, anchor: Encoder, adversary: AdversarySection) -> None:
        super().__init__(tuned, anchor)
        self._adversary = adversary

    def losses(self, batch: Batch) -> Losses:
        """See ``Stage.losses``."""
        wanted = self._anchored(batch)
        points = worst_images(
            batch.images,
            lambda images: self._drift(images, wanted),
            self._adversary,
            batch.seed,
            batch.share.rows.start,
        )
        return {"drift": batch.share.mean(self._drift(points, wanted).mean())}


class TecoaStage(TuningStage):
    """Attacked images still find the text of their class (Mao et al. 2023, arXiv 2212.07016).

    Args:
        tuned: see ``TuningStage``.
        anchor: likewise.
        adversary: the attack.
        classes: unit text features (C, d) of the anchor, which stay.
    """

    name = "tecoa"

    def __init__(
        self, tuned: Encoder, anchor: Encoder, adversary: AdversarySection, classes: torch.Tensor
    ) -> None:
        super().__init__(tuned, anchor)
        self._adversary = adversary
        self._texts = classes.to(device=tuned.device, dtype=torch.float32).T * self.tuned.logit_scale

    def losses(self, batch: Batch) -> Losses:
        """See ``Stage.losses``."""

        def guided(images: torch.Tensor) -> torch.Tensor:
            logits = self.tuned.encode_images(images) @ self._texts
            return F.cross_entropy(logits, batch.classes, reduction="none")

        points = worst_images(batch.images, guided, self._adversary, batch.seed, batch.share.rows.start)
        return {"text": batch.share.mean(guided(points).mean())}
