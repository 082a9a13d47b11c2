"""The smoothness mapper: moves a noisy feature towards the one that it has without noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from smoothcert.defences.noise_level import FiLM, SigmaEmbedding


class ResidualMapper(torch.nn.Module):
    """M(z, sigma) = z + c(z, sigma): the identity as made, before training.

    A pooled feature is cut into ``groups`` parts, which attend to each other as tokens do; with ``tokens`` the patch
    tokens of an image do so themselves, and may be of any number. Then c has ``blocks`` of attention, a depth-wise
    convolution along the tokens and an MLP, each modulated by the noise level.

    Args:
        feature_dim: d, of pooled features or of tokens.
        groups: parts of a pooled feature; a divisor of d. Not used with ``tokens``.
        width: numbers inside, a multiple of ``heads``.
        heads: of attention.
        blocks: how many.
        tokens: takes patch tokens (B, T, d) instead of pooled features (B, d).

    Raises:
        ValueError: a setting is wrong.
    """

    kind: ClassVar[str] = "residual_mapper"
    conditioned: ClassVar[bool] = True

    def __init__(
        self,
        feature_dim: int,
        groups: int = 8,
        width: int = 64,
        heads: int = 4,
        blocks: int = 2,
        tokens: bool = False,
    ) -> None:
        super().__init__()
        if feature_dim < 1 or (not tokens and (groups < 1 or feature_dim % groups)):
            raise ValueError(f"feature_dim={feature_dim} cannot be cut into groups={groups} equal parts")
        if heads < 1 or width % heads or blocks < 1:
            raise ValueError(f"width={width}, heads={heads}, blocks={blocks}: heads must divide width")
        self.settings = {
            "feature_dim": feature_dim,
            "groups": groups,
            "width": width,
            "heads": heads,
            "blocks": blocks,
            "tokens": tokens,
        }
        self.feature_dim = feature_dim
        self.tokens = tokens
        part = feature_dim if tokens else feature_dim // groups
        self.embedding = SigmaEmbedding()
        self.enter = torch.nn.Linear(part, width)
        self.places = None if tokens else torch.nn.Parameter(0.02 * torch.randn(groups, width))
        self.blocks = torch.nn.ModuleList(_TokenBlock(width, heads) for _ in range(blocks))
        self.leave = torch.nn.Linear(width, part)
        torch.nn.init.zeros_(self.leave.weight)
        torch.nn.init.zeros_(self.leave.bias)

    @classmethod
    def restore(cls, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> ResidualMapper:
        """The module that a file holds."""
        made = cls(**settings)
        made.load_state_dict(dict(tensors))
        return made

    def forward(self, features: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The mapped features.

        Args:
            features: (B, d), or (B, T, d) with ``tokens``.
            sigma: (B,) standard deviations of the noise on the images, units of [0,1] pixels.

        Returns:
            The same shape; not normalised.
        """
        embedded = self.embedding(sigma)
        if self.places is None:
            hidden = self.enter(features)
        else:
            parts = features.reshape(len(features), len(self.places), -1)
            # unit features of many dimensions have small entries
            hidden = self.enter(parts * self.feature_dim**0.5) + self.places
        for block in self.blocks:
            hidden = block(hidden, embedded)
        mapped: torch.Tensor = features + self.leave(hidden).reshape(features.shape)
        return mapped


class _TokenBlock(torch.nn.Module):
    """Attention, depth-wise convolution and MLP on tokens (B, T, width), each added to what it is given."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(width) for _ in range(3))
        self.films = torch.nn.ModuleList(FiLM(width, axis=-1) for _ in range(3))
        self.projections = torch.nn.Linear(width, 3 * width)
        self.join = torch.nn.Linear(width, width)
        self.along = torch.nn.Conv1d(width, width, 3, padding=1, groups=width)
        self.mlp = torch.nn.Sequential(
            torch.nn.Linear(width, 2 * width), torch.nn.GELU(), torch.nn.Linear(2 * width, width)
        )

    def forward(self, hidden: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
        parts: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (self._attend, self._convolve, self.mlp)
        for part, norm, film in zip(parts, self.norms, self.films, strict=True):
            hidden = hidden + part(film(norm(hidden), embedded))
        return hidden

    def _attend(self, hidden: torch.Tensor) -> torch.Tensor:
        split = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.projections(hidden).chunk(3, dim=-1)
        )
        seen = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        joined: torch.Tensor = self.join(seen)
        return joined

    def _convolve(self, hidden: torch.Tensor) -> torch.Tensor:
        mixed: torch.Tensor = self.along(hidden.transpose(1, 2)).transpose(1, 2)
        return mixed
