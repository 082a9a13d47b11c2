"""The encoder contract, tried out on noise."""

from __future__ import annotations

import torch

from smoothcert.encoders.base import Encoder
from smoothcert.errors import EncoderError

_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest distance of two unit features that rounding explains. Batches that leak are off by far more."""


def check_encoder(encoder: Encoder) -> None:
    """Check what no attribute shows: shape, unit norm, same answer twice, no look at the rest of the batch.

    Costs four forward passes of three images. A finite number of trials cannot prove the contract; it finds
    what usually breaks it (batch statistics, hidden randomness, unnormalised features).

    Raises:
        EncoderError: the contract is broken, and how.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (3, 3, *encoder.input_size)
    first, second = (torch.rand(shape, generator=generator).to(encoder.device) for _ in range(2))
    mixed = torch.cat((first[:1], second[1:]))
    with torch.no_grad():
        once, again, among_others = (encoder.encode_images(batch) for batch in (first, first, mixed))
        black = encoder.encode_images(torch.cat((first[:1], torch.zeros_like(first[1:]))))
    if tuple(once.shape) != (3, encoder.feature_dim) or once.dtype != torch.float32:
        raise EncoderError(
            f"encoder '{encoder.name}' makes features {tuple(once.shape)} {once.dtype}; "
            f"expected {(3, encoder.feature_dim)} torch.float32",
            remedy="set feature_dim to what _image_features returns",
        )
    if not torch.isfinite(once).all():
        raise EncoderError(
            f"encoder '{encoder.name}' makes NaN or infinite features of uniform noise",
            remedy="check the weights; with encoder.dtype=float16 try bfloat16 or float32",
        )
    tolerance = _TOLERANCE[encoder.dtype]
    if (torch.linalg.vector_norm(once, dim=1) - 1).abs().max() > 1e-5:
        raise EncoderError(f"encoder '{encoder.name}' makes features that are not unit vectors")
    if (once - again).norm(dim=1).max() > tolerance:
        raise EncoderError(
            f"encoder '{encoder.name}' gives two answers for the same images: it is random",
            remedy="certify a deterministic encoder; randomness inside it is not part of the noise",
        )
    if max((once[0] - other[0]).norm().item() for other in (among_others, black)) > tolerance:
        raise EncoderError(
            f"encoder '{encoder.name}': an image's feature depends on the other images in its batch, so "
            "draws would not be independent and no certificate would hold",
            remedy="use layers that treat images separately (no batch statistics or attention across images)",
        )
