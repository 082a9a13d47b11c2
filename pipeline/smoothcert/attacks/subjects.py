"""What is attacked: an encoder as it is, or smoothed, seen as features and their gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch

from smoothcert.attacks.noise import NoiseKey, draw_chunks
from smoothcert.encoders.base import Encoder
from smoothcert.errors import EncoderError, JobError

RowLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(features (k, d), rows (k,)) -> losses (k,): the losses of some rows of a batch."""


class Subject(ABC):
    """Something an attack can query: images in, features out, and the gradient of a loss of these features.

    Attributes:
        name: how results call it: ``bare``, ``smoothed``, or a defence's name.
        encoder: the base encoder u, purifier and mapper included.
        eot_draws: noise draws behind one feature; 1 where there is no noise.
        sigma: of the noise, units of [0,1] pixels; 0 where there is none.
        chunk: images in one forward pass at most.
    """

    def __init__(self, encoder: Encoder, *, name: str, eot_draws: int, sigma: float, chunk: int) -> None:
        if chunk < 1:
            raise JobError(f"chunk={chunk} is not a valid number of images", remedy="use 1 or more")
        self.encoder = encoder
        self.name = name
        self.eot_draws = eot_draws
        self.sigma = sigma
        self.chunk = chunk
        self._differentiable = False

    @property
    def stochastic(self) -> bool:
        """Whether two queries with different keys may differ."""
        return self.sigma > 0

    @abstractmethod
    def features(self, images: torch.Tensor, keys: Sequence[NoiseKey]) -> torch.Tensor:
        """Estimated features, without gradients.

        Args:
            images: float32 (B, 3, H, W) on the encoder's device.
            keys: one a pair: the noise of its draws.

        Returns:
            float32 (B, d), norm at most 1 (exactly 1 where there is no noise).
        """

    @abstractmethod
    def gradient(
        self, images: torch.Tensor, loss: RowLoss, keys: Sequence[NoiseKey]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, d) and the gradient (B, 3, H, W) of each pair's loss of its own feature.

        Memory grows with ``chunk``, not with ``eot_draws``.
        """

    @abstractmethod
    def draws(self, image: torch.Tensor, key: NoiseKey, count: int) -> Iterator[torch.Tensor]:
        """Unit features of single draws of one image (3, H, W), a chunk (<= chunk, d) at a time."""

    def draws_of_each(
        self, images: torch.Tensor, keys: Sequence[NoiseKey], count: int
    ) -> Iterator[torch.Tensor]:
        """``draws`` of several images (B, 3, H, W), an image's in one: B times (n, d), each when it is asked for."""
        for image, key in zip(images, keys, strict=True):
            yield torch.cat(list(self.draws(image, key, count)))

    def note_images(self, count: int) -> None:  # noqa: B027  # to be overridden where somebody counts
        """Hear of images that a search put through an encoder beside this subject, on its behalf."""

    def check_gradients(self) -> None:
        """Raise ``EncoderError`` unless a search can follow this subject's gradients; tried once.

        One of several random images, under one draw of the noise where there is any, has to give a gradient that is
        finite and not zero everywhere: rounding, for instance, is differentiable and leads nowhere, so that a search
        along it would find everything robust. No pair is looked at: one of its own may be broken.
        """
        if self._differentiable:
            return
        cause: Exception | None = None
        why = "quantised or exported?"
        for probe in self._probes():
            try:
                gradient = self._probed(probe)
            except (RuntimeError, NotImplementedError) as exc:
                cause = exc
                break
            if gradient is None:
                continue
            if not bool(torch.isfinite(gradient).all()):
                why = "on random images they are NaN or infinite"
            elif not bool(gradient.any()):
                why = "on random images they are zero everywhere: rounded or quantised?"
            else:
                self._differentiable = True
                return
        raise EncoderError(
            f"encoder '{self.encoder.name}' gives no gradients with respect to pixels (subject '{self.name}')"
            f": {cause or why}",
            remedy="use the attack 'square', which needs no gradients, or load a differentiable version of the encoder",
        ) from cause

    def _probed(self, probe: torch.Tensor) -> torch.Tensor | None:
        """The gradient of the features at one image, where the encoder has any."""
        with torch.enable_grad():
            features = self.encoder.encode_images(probe).float()
            if not features.requires_grad:
                return None
            # a direction of its own: the sum of the features may happen to stand still
            ahead = torch.linspace(-1, 2, features.shape[1], device=features.device).sin()
            (gradient,) = torch.autograd.grad((features @ ahead).sum(), probe, allow_unused=True)
            return gradient

    def _probes(self) -> Iterator[torch.Tensor]:
        """Random images (1, 3, H, W) as this subject shows them to the encoder: every pixel for itself, or smooth."""
        generator = torch.Generator().manual_seed(0)
        size = self.encoder.input_size
        for side in (size, (4, 4), size, (4, 4)):
            image = torch.rand((1, 3, *side), generator=generator)
            if side != size:
                image = torch.nn.functional.interpolate(image, size, mode="bilinear")
            image += self.sigma * torch.randn(image.shape, generator=generator)
            yield image.to(self.encoder.device).requires_grad_(True)


def _join(parts: list[torch.Tensor]) -> torch.Tensor:
    """One batch of several; a single part is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class BareSubject(Subject):
    """The encoder as it is: u(x).

    Args:
        encoder: any encoder.
        chunk: images in one forward pass at most.
        name: how results call it.
    """

    def __init__(self, encoder: Encoder, *, chunk: int = 256, name: str = "bare") -> None:
        super().__init__(encoder, name=name, eot_draws=1, sigma=0.0, chunk=chunk)

    def features(self, images: torch.Tensor, keys: Sequence[NoiseKey]) -> torch.Tensor:
        """See ``Subject.features``; ``keys`` are not used."""
        with torch.no_grad():
            return torch.cat([self.encoder.encode_images(part) for part in torch.split(images, self.chunk)])

    def gradient(
        self, images: torch.Tensor, loss: RowLoss, keys: Sequence[NoiseKey]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``Subject.gradient``; ``keys`` are not used."""
        features, gradients = [], []
        rows = torch.arange(len(images), device=images.device)
        for part, some in zip(torch.split(images, self.chunk), torch.split(rows, self.chunk), strict=True):
            points = part.detach().requires_grad_(True)
            feature = self.encoder.encode_images(points)
            gradients.append(torch.autograd.grad(loss(feature, some).sum(), points)[0])
            features.append(feature.detach())
        return _join(features), _join(gradients)

    def draws(self, image: torch.Tensor, key: NoiseKey, count: int) -> Iterator[torch.Tensor]:
        """See ``Subject.draws``; there is one draw, whatever ``count``."""
        with torch.no_grad():
            yield self.encoder.encode_images(image[None])


class SmoothedSubject(Subject):
    """The smoothed encoder m(x) = E[u(x + eps)], by expectation over transformation.

    Features are means over ``eot_draws`` draws, the gradient that of the loss of this mean. Where a pair's
    draws fit into one forward pass it is made once; else the features are computed first without gradients,
    then each chunk adds its share of dL/dm du/dx: one more forward pass, but memory for a chunk only.

    Args:
        encoder: the base encoder u.
        sigma: of the noise, units of [0,1] pixels.
        eot_draws: draws behind one feature (docs/theory.md section 5: fewer than 64 overstate robustness).
        chunk: images in one forward pass at most.
        name: how results call it.
    """

    def __init__(
        self, encoder: Encoder, sigma: float, *, eot_draws: int = 64, chunk: int = 256, name: str = "smoothed"
    ) -> None:
        if not 0 < sigma < float("inf"):
            raise JobError(
                f"sigma={sigma} is not a valid standard deviation; it must be positive",
                remedy="use a positive number, e.g. 0.25",
            )
        if eot_draws < 1:
            raise JobError(f"eot_draws={eot_draws} is not a valid number of draws", remedy="use 64 or more")
        super().__init__(encoder, name=name, eot_draws=eot_draws, sigma=sigma, chunk=chunk)

    def features(self, images: torch.Tensor, keys: Sequence[NoiseKey]) -> torch.Tensor:
        """See ``Subject.features``."""
        if not len(images):
            return torch.zeros((0, self.encoder.feature_dim), device=images.device)
        with torch.no_grad():
            return torch.cat(
                [self._group_features(images[a:b], keys[a:b]) for a, b in self._groups(len(images))]
            )

    def gradient(
        self, images: torch.Tensor, loss: RowLoss, keys: Sequence[NoiseKey]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``Subject.gradient``."""
        if not len(images):
            return torch.zeros((0, self.encoder.feature_dim), device=images.device), images
        whole = self.eot_draws <= self.chunk
        features, gradients = [], []
        for a, b in self._groups(len(images)):
            rows = torch.arange(a, b, device=images.device)
            points = images[a:b].detach().requires_grad_(True)
            if whole:
                feature = self._group_features(points, keys[a:b])
                gradients.append(torch.autograd.grad(loss(feature, rows).sum(), points)[0])
            else:
                with torch.no_grad():
                    feature = self._group_features(points, keys[a:b])
                feature.requires_grad_(True)
                (pull,) = torch.autograd.grad(loss(feature, rows).sum(), feature)
                gradients.append(self._pulled_back(points, pull[0], keys[a]))
            features.append(feature.detach())
        return torch.cat(features), torch.cat(gradients)

    def draws(self, image: torch.Tensor, key: NoiseKey, count: int) -> Iterator[torch.Tensor]:
        """See ``Subject.draws``."""
        with torch.no_grad():
            for noise in self._noise(image, key, count):
                yield self.encoder.encode_images(image + noise)

    def _groups(self, pairs: int) -> Iterator[tuple[int, int]]:
        """Pairs whose draws share a forward pass."""
        size = max(1, self.chunk // self.eot_draws)
        return pairwise((*range(0, pairs, size), pairs))

    def _noise(self, image: torch.Tensor, key: NoiseKey, count: int) -> Iterator[torch.Tensor]:
        for standard in draw_chunks(key, tuple(image.shape), count, self.chunk, image.device):
            yield standard.mul_(self.sigma)

    def _group_features(self, points: torch.Tensor, keys: Sequence[NoiseKey]) -> torch.Tensor:
        """Mean features (k, d) of a group: one forward pass, or a single pair in several."""
        count = self.eot_draws
        if count <= self.chunk:
            noise = torch.stack([next(self._noise(points[0], key, count)) for key in keys])
            features = self.encoder.encode_images((points[:, None] + noise).flatten(0, 1))
            return features.reshape(len(points), count, -1).mean(dim=1)
        total = torch.zeros((1, self.encoder.feature_dim), device=points.device, dtype=torch.float64)
        for noise in self._noise(points[0], keys[0], count):
            total += self.encoder.encode_images(points + noise).sum(dim=0, keepdim=True, dtype=torch.float64)
        return (total / count).float()

    def _pulled_back(self, points: torch.Tensor, pull: torch.Tensor, key: NoiseKey) -> torch.Tensor:
        """Sum over chunks of (dL/dm)' du/dx / draws, for one pair."""
        total = torch.zeros_like(points)
        for noise in self._noise(points[0].detach(), key, self.eot_draws):
            share = (self.encoder.encode_images(points + noise) @ pull).sum() / self.eot_draws
            total += torch.autograd.grad(share, points)[0]
        return total
