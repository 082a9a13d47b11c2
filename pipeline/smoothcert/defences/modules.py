"""A purifier and a mapper that know no noise level: plain tensors, written by hand or by another tool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F


class ConvolutionalPurifier(torch.nn.Module):
    """x + c(x), with c a chain of convolutions and ReLU between them: (B, 3, H, W) to the same.

    Borders are padded with the nearest pixel. Nothing is clamped.

    Args:
        tensors: ``layers.<i>.weight`` (out, in, k, k) with odd k, and optionally ``layers.<i>.bias`` (out,), for
            i = 0, 1, ...; the first takes 3 channels, the last gives 3.

    Raises:
        ValueError: the tensors do not fit together.
    """

    kind: ClassVar[str] = "convolutional_purifier"
    conditioned: ClassVar[bool] = False

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.weights = torch.nn.ParameterList()
        self.biases = torch.nn.ParameterList()
        channels = 3
        while f"layers.{len(self.weights)}.weight" in tensors:
            name = f"layers.{len(self.weights)}"
            weight = tensors[f"{name}.weight"].float()
            if weight.ndim != 4 or weight.shape[1] != channels or not _odd_square(weight):
                raise ValueError(
                    f"{name}.weight has shape {tuple(weight.shape)}; expected (out, {channels}, k, k) with odd k"
                )
            channels = weight.shape[0]
            bias = tensors.get(f"{name}.bias", torch.zeros(channels)).float()
            if tuple(bias.shape) != (channels,):
                raise ValueError(f"{name}.bias has shape {tuple(bias.shape)}; expected ({channels},)")
            self.weights.append(torch.nn.Parameter(weight, requires_grad=False))
            self.biases.append(torch.nn.Parameter(bias, requires_grad=False))
        if not len(self.weights) or channels != 3:
            raise ValueError(f"{len(self.weights)} layers end with {channels} channels; expected 3")

    @classmethod
    def restore(
        cls, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]
    ) -> ConvolutionalPurifier:
        """The module that a file holds; it has no settings."""
        return cls(tensors, **settings)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """The purified images."""
        hidden = pixels
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.relu(hidden) if number else hidden
            reach = weight.shape[-1] // 2
            hidden = F.conv2d(F.pad(hidden, (reach,) * 4, mode="replicate"), weight, bias)
        return pixels + hidden


class LinearMapper(torch.nn.Module):
    """W f + b: (B, d) to (B, d); whoever uses it normalises.

    Args:
        tensors: ``weight`` (d, d), and optionally ``bias`` (d,).

    Raises:
        ValueError: the tensors do not fit together.
    """

    kind: ClassVar[str] = "linear_mapper"
    conditioned: ClassVar[bool] = False

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        weight = tensors.get("weight", torch.empty(0)).float()
        if weight.ndim != 2 or weight.shape[0] != weight.shape[1]:
            raise ValueError(f"weight has shape {tuple(weight.shape)}; expected (d, d)")
        bias = tensors.get("bias", torch.zeros(len(weight))).float()
        if bias.shape != weight.shape[:1]:
            raise ValueError(f"bias has shape {tuple(bias.shape)}; expected ({len(weight)},)")
        self.weight = torch.nn.Parameter(weight, requires_grad=False)
        self.bias = torch.nn.Parameter(bias, requires_grad=False)

    @classmethod
    def restore(cls, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> LinearMapper:
        """The module that a file holds; it has no settings."""
        return cls(tensors, **settings)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """The mapped features."""
        return F.linear(features, self.weight, self.bias)


def _odd_square(weight: torch.Tensor) -> bool:
    return weight.shape[2] == weight.shape[3] and weight.shape[2] % 2 == 1
