"""What is fitted in one go: a module, its losses on a batch, and the features that come out of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from smoothcert.defences import ResidualMapper, UNetPurifier
from smoothcert.encoders import Encoder
from smoothcert.encoders.base import unit_rows
from smoothcert.job.train import AdversarySection, LossWeights
from smoothcert.training.adversary import worst_images
from smoothcert.training.batches import Batch
from smoothcert.training.losses import Losses, cosine_loss, denoising_loss, identity_loss, moments_loss

Purify = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(noisy images (B, 3, H, W), sigma (B,)) -> images: what stands before the encoder."""


class Stage(ABC):
    """One fit.

    Attributes:
        name: of the stage; keys its random numbers and names its checkpoint.
        module: what is fitted.
    """

    name: str
    module: torch.nn.Module

    @abstractmethod
    def losses(self, batch: Batch) -> Losses:
        """The parts of the loss over the whole batch; their sum is minimised.

        Where this is a share of the batch, the gradient is that of the share: those of all add up (``Team.total``).
        """

    @abstractmethod
    def features(self, pixels: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Unit features (B, d) as the module now makes them, of images that may be noisy."""


def leave_alone(pixels: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """No purifier."""
    return pixels


class PurifierStage(Stage):
    """Denoising, and features after it as they are without noise.

    Args:
        encoder: frozen.
        module: the purifier.
        weights: of the parts.
        adversary: attacks the images under the noise of the batch, so that the feature after the purifier turns away
            (Salman et al. 2019, arXiv 1906.04584, with one draw); what it adds is for the purifier to take out, like
            noise. None: images stay as they are.
    """

    name = "purifier"

    def __init__(
        self,
        encoder: Encoder,
        module: UNetPurifier,
        weights: LossWeights,
        adversary: AdversarySection | None = None,
    ) -> None:
        self.module: UNetPurifier = module
        self._encoder = encoder
        self._weights = weights
        self._adversary = adversary

    def losses(self, batch: Batch) -> Losses:
        """See ``Stage.losses``."""
        if self._adversary is not None:
            batch = self._attacked(batch, self._adversary)
        noisy, mean = batch.noisy, batch.share.mean
        estimate = self.module.noise(noisy, batch.sigma).float()
        purified = noisy - batch.sigma.view(-1, 1, 1, 1) * estimate
        parts = {"denoising": mean(denoising_loss(estimate, batch.noise))}
        if self._weights.reconstruction:
            parts["reconstruction"] = self._weights.reconstruction * mean(
                (purified - batch.images).square().mean()
            )
        if self._weights.consistency:
            with torch.no_grad():
                clean = self._encoder.encode_images(batch.images)
            parts["consistency"] = self._weights.consistency * mean(
                cosine_loss(self._encoder.encode_images(purified), clean)
            )
        return parts

    def features(self, pixels: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """See ``Stage.features``."""
        return self._encoder.encode_images(self.module(pixels, sigma))

    def _attacked(self, batch: Batch, adversary: AdversarySection) -> Batch:
        """The batch with what the adversary adds counted as noise."""
        level = batch.sigma.view(-1, 1, 1, 1)
        with torch.no_grad():
            wanted = self._encoder.encode_images(batch.images)

        def turned(images: torch.Tensor) -> torch.Tensor:
            features = self.features(torch.addcmul(images, batch.noise, level), batch.sigma)
            return 1 - F.cosine_similarity(features.float(), wanted.float(), dim=-1)

        first = batch.share.rows.start
        added = worst_images(batch.images, turned, adversary, batch.seed, first) - batch.images
        return replace(batch, noise=batch.noise + added / level)


class MapperStage(Stage):
    """Features of noisy images moved to those without noise.

    Args:
        encoder: frozen.
        purify: stands before it, frozen.
        module: the mapper, of pooled features or of tokens.
        weights: of the parts.
    """

    def __init__(
        self, encoder: Encoder, purify: Purify, module: ResidualMapper, weights: LossWeights
    ) -> None:
        self.name = "token-mapper" if module.tokens else "mapper"
        self.module: ResidualMapper = module
        self._encoder = encoder
        self._purify = purify
        self._weights = weights

    def losses(self, batch: Batch) -> Losses:
        """See ``Stage.losses``."""
        with torch.no_grad():
            wanted = self._encode(batch.images)
            noisy = self._encode(self._purify(batch.noisy, batch.sigma))
        mapped, mean = self.module(noisy, batch.sigma), batch.share.mean
        parts = {"cosine": mean(cosine_loss(mapped, wanted))}
        if self._weights.moments:
            parts["moments"] = self._weights.moments * moments_loss(mapped, wanted, mean)
        if self._weights.identity:
            still = self.module(noisy, torch.zeros_like(batch.sigma))
            parts["identity"] = self._weights.identity * identity_loss(still, noisy, mean)
        return parts

    def features(self, pixels: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """See ``Stage.features``; of tokens, their mapped mean."""
        mapped = self.module(self._encode(self._purify(pixels, sigma)), sigma)
        return unit_rows(mapped.mean(dim=1) if self.module.tokens else mapped)

    def _encode(self, pixels: torch.Tensor) -> torch.Tensor:
        if self.module.tokens:
            return self._encoder.encode_patches(pixels)
        return self._encoder.encode_images(pixels)


def purify_with(module: Any) -> Purify:
    """A purifier as saved, conditioned or not, at the level of each image."""
    if module is None:
        return leave_alone
    if getattr(module, "conditioned", False):
        return lambda pixels, sigma: module(pixels, sigma)
    return lambda pixels, sigma: module(pixels)
