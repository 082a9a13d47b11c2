"""A purifier and a mapper whose weights are plain safetensors files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F

KIND = "smoothcert"
"""Key of a file's metadata; its value says which module the file holds."""


class ConvolutionalPurifier(torch.nn.Module):
    """x + c(x), with c a chain of convolutions and ReLU between them: (B, 3, H, W) to the same.

    Borders are padded with the nearest pixel. Nothing is clamped.

    Args:
        tensors: ``layers.<i>.weight`` (out, in, k, k) with odd k, and optionally ``layers.<i>.bias`` (out,), for
            i = 0, 1, ...; the first takes 3 channels, the last gives 3.

    Raises:
        ValueError: the tensors do not fit together.
    """

    kind = "convolutional_purifier"

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

    kind = "linear_mapper"

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

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """The mapped features."""
        return F.linear(features, self.weight, self.bias)


PURIFIERS: Mapping[str, type[ConvolutionalPurifier]] = {ConvolutionalPurifier.kind: ConvolutionalPurifier}
MAPPERS: Mapping[str, type[LinearMapper]] = {LinearMapper.kind: LinearMapper}


def save_module(path: Path, kind: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a module's tensors where a job can name them.

    Args:
        path: a new file that ends in .safetensors.
        kind: ``ConvolutionalPurifier.kind`` or ``LinearMapper.kind``.
        tensors: as the module's constructor takes them, which is tried first.

    Raises:
        ValueError: the kind is unknown, or the tensors do not fit together.
    """
    known = {**PURIFIERS, **MAPPERS}
    if kind not in known:
        raise ValueError(f"kind '{kind}' is unknown; use one of {', '.join(known)}")
    known[kind](tensors)
    safetensors.torch.save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={KIND: kind}
    )


def kind_of(data: bytes) -> str | None:
    """Which module the bytes of a safetensors file hold."""
    size = int.from_bytes(data[:8], "little")
    kind = json.loads(data[8 : 8 + size]).get("__metadata__", {}).get(KIND)
    return kind if isinstance(kind, str) else None


def _odd_square(weight: torch.Tensor) -> bool:
    return weight.shape[2] == weight.shape[3] and weight.shape[2] % 2 == 1
