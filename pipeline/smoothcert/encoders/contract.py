"""The encoder contract, tried out on noise and on a few short texts."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import TypeVar

import torch

from smoothcert.encoders.base import Encoder
from smoothcert.errors import EncoderError, SmoothcertError

_T = TypeVar("_T")

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest distance of two unit features that rounding explains. Batches that leak are off by far more."""
_SAME = {torch.float32: 1e-5, torch.float64: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}
"""Distance, within one batch, up to which two texts count as one: some hundred roundings of a small number."""


def check_encoder(encoder: Encoder) -> None:
    """Check what no attribute shows: shape, unit norm, same answer twice, no look at the rest of the batch.

    Texts are held to the same, in another order and alone too; and different texts must have different features.
    Costs four forward passes of three images, and some eight of a few short texts. A finite number of trials cannot
    prove the contract; it finds what usually breaks it (batch statistics, hidden randomness, unnormalised features,
    padding that shifts a text, a text feature that is read before the end of the text).

    Raises:
        EncoderError: the contract is broken, and how.
    """
    _check_images(encoder)
    if encoder.has_texts:
        _check_texts(encoder)


def _check_images(encoder: Encoder) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (3, 3, *encoder.input_size)
    first, second = (torch.rand(shape, generator=generator).to(encoder.device) for _ in range(2))
    mixed = torch.cat((first[:1], second[1:]))
    dark = torch.cat((first[:1], torch.zeros_like(first[1:])))

    def encode(batch: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return _try_out(encoder, "uniform noise", lambda: encoder.encode_images(batch))

    once, again, among_others, black = (encode(batch) for batch in (first, first, mixed, dark))
    _check_form(encoder, once, 3, "uniform noise", "_image_features")
    tolerance = TOLERANCE[encoder.dtype]
    if _distance(once, again) > tolerance:
        raise EncoderError(
            f"encoder '{encoder.name}' returns different features for the same images, so it is random",
            remedy="certify a deterministic encoder; randomness inside it is not part of the noise",
        )
    if max(_distance(once[:1], other[:1]) for other in (among_others, black)) > tolerance:
        raise EncoderError(
            f"encoder '{encoder.name}': an image's feature depends on the other images in its batch, so "
            "draws would not be independent and no certificate would hold",
            remedy="use layers that process each image separately (no batch statistics, no attention across images)",
        )


def _check_texts(encoder: Encoder) -> None:
    texts = encoder.probe_texts

    def encode(asked: tuple[str, ...]) -> torch.Tensor:
        return _try_out(encoder, f"the texts {asked}", lambda: encoder.encode_texts(asked))

    once, again, turned = encode(texts), encode(texts), encode(texts[::-1])
    _try_out(encoder, f"the length of the texts {texts}", lambda: encoder.read_texts(texts))
    _check_form(encoder, once, len(texts), "short texts", "_text_features")
    tolerance = TOLERANCE[encoder.dtype]
    if _distance(once, again) > tolerance:
        raise EncoderError(
            f"encoder '{encoder.name}' gives two answers for the same texts: it is random",
            remedy="certify a deterministic encoder, in evaluation mode",
        )
    for one, other in combinations(range(len(texts)), 2):
        if _distance(once[one], once[other]) <= _SAME[encoder.dtype]:
            raise EncoderError(
                f"encoder '{encoder.name}' gives the texts {texts[one]!r} and {texts[other]!r} the same feature: what "
                "is certified about captions and classes would say nothing",
                remedy="check that its text tower reads the feature where the text ends (eos_token_id in config.json), "
                "and that the tokenizer is its own; where it knows other words only, override probe_texts",
            )
    if _distance(once, turned.flip(0)) > tolerance:
        raise EncoderError(
            f"encoder '{encoder.name}': the features of texts depend on their order",
            remedy="return one feature a text, in the order of the texts",
        )
    for text, feature in zip(texts, once, strict=True):
        if _distance(feature[None], encode((text,))) > tolerance:
            raise EncoderError(
                f"encoder '{encoder.name}': the feature of {text!r} depends on the other texts in its batch, so "
                "captions and classes would have no feature of their own",
                remedy="pad texts at the right (padding_side: right in tokenizer_config.json), where a mask or the end "
                "token keeps padding out, or always to the same length",
            )


def _try_out(encoder: Encoder, what: str, call: Callable[[], _T]) -> _T:
    """What ``call`` returns; what it raises, as an ``EncoderError``."""
    try:
        return call()
    except (SmoothcertError, torch.OutOfMemoryError):
        raise
    except Exception as exc:  # whatever a model's own code raises
        raise EncoderError(
            f"encoder '{encoder.name}' fails on {what}: {type(exc).__name__}: {exc}",
            remedy="check the settings in its configuration files, and that its code runs on its own",
        ) from exc


def _check_form(encoder: Encoder, features: torch.Tensor, count: int, what: str, method: str) -> None:
    if tuple(features.shape) != (count, encoder.feature_dim) or features.dtype != torch.float32:
        raise EncoderError(
            f"encoder '{encoder.name}' makes features {tuple(features.shape)} {features.dtype} of {what}; "
            f"expected {(count, encoder.feature_dim)} torch.float32",
            remedy=f"set feature_dim to what {method} returns",
        )
    if not torch.isfinite(features).all():
        raise EncoderError(
            f"encoder '{encoder.name}' makes NaN or infinite features of {what}",
            remedy="check the weights; with encoder.dtype=float16 try bfloat16 or float32",
        )
    if (torch.linalg.vector_norm(features, dim=1) - 1).abs().max() > 1e-5:
        raise EncoderError(f"encoder '{encoder.name}' makes features of {what} that are not unit vectors")


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest distance of corresponding features."""
    return float((one - other).norm(dim=-1).max())
