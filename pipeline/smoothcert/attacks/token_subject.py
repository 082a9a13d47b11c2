"""A multimodal model as the subject of an attack: the image tokens that its language model sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch

from smoothcert.attacks.noise import NoiseKey, draw_chunks
from smoothcert.attacks.subjects import RowLoss, Subject
from smoothcert.defences.defended_tower import Eye

TokenRule = Literal["bare", "smoothed", "vote"]


class TokenSubject(Subject):
    """Image tokens as features, not normalised: their length is part of what the language model sees.

        bare        of the image as it is (B, T d)
        smoothed    their mean over noisy images (B, T d)
        vote        of each noisy image, one after another (B, n T d)

    Args:
        eye: the model's tower, or the tower behind a defence.
        rule: how draws become features.
        sigma: of the noise, units of [0,1] pixels; not used by ``bare``.
        eot_draws: draws behind one feature.
        chunk: images in one forward pass at most.
        name: how results call it; the rule by default.
    """

    def __init__(
        self, eye: Eye, rule: TokenRule, *, sigma: float, eot_draws: int, chunk: int, name: str = ""
    ) -> None:
        bare = rule == "bare"
        super().__init__(
            eye,
            name=name or rule,
            eot_draws=1 if bare else eot_draws,
            sigma=0.0 if bare else sigma,
            chunk=max(chunk, 1 if bare else eot_draws),
        )
        self._eye, self._rule = eye, rule

    def features(self, images: torch.Tensor, keys: Sequence[NoiseKey]) -> torch.Tensor:
        """See ``Subject.features``."""
        with torch.no_grad():
            return torch.cat([self._seen(images[part], keys[part]) for part in self._groups(len(images))])

    def gradient(
        self, images: torch.Tensor, loss: RowLoss, keys: Sequence[NoiseKey]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``Subject.gradient``; memory grows with ``eot_draws``, since a vote's loss needs all of its passes."""
        features, gradients = [], []
        for part in self._groups(len(images)):
            points = images[part].detach().requires_grad_(True)
            rows = torch.arange(part.start, part.start + len(points), device=images.device)
            with torch.enable_grad():
                feature = self._seen(points, keys[part])
                gradients.append(torch.autograd.grad(loss(feature, rows).sum(), points)[0])
            features.append(feature.detach())
        return torch.cat(features), torch.cat(gradients)

    def draws(self, image: torch.Tensor, key: NoiseKey, count: int) -> Iterator[torch.Tensor]:
        """Image tokens (<= chunk, T d) of single draws of one image (3, H, W); of ``bare`` the image itself."""
        with torch.no_grad():
            if self._rule == "bare":
                yield self._eye.image_tokens(image[None]).float().flatten(1)
                return
            for noise in draw_chunks(key, tuple(image.shape), count, self.chunk, image.device):
                yield self._eye.image_tokens(image + noise * self.sigma).float().flatten(1)

    def _groups(self, pairs: int) -> list[slice]:
        size = max(1, self.chunk // self.eot_draws)
        return [slice(start, start + size) for start in range(0, max(pairs, 1), size)]

    def _seen(self, points: torch.Tensor, keys: Sequence[NoiseKey]) -> torch.Tensor:
        if self._rule == "bare":
            return self._eye.image_tokens(points).float().flatten(1)
        count, shape = self.eot_draws, tuple(points.shape[1:])
        noise = torch.stack(
            [torch.cat(list(draw_chunks(key, shape, count, count, points.device))) for key in keys]
        )
        tokens = self._eye.image_tokens((points[:, None] + self.sigma * noise).flatten(0, 1)).float()
        seen = tokens.reshape(len(points), count, -1)
        return seen.mean(dim=1) if self._rule == "smoothed" else seen.flatten(1)
