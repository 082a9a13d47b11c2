"""An encoder with a purifier before it and a mapper behind it: an encoder again."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from smoothcert.encoders.base import Encoder, ReadText
from smoothcert.errors import EncoderError, SmoothcertError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


class DefendedEncoder(Encoder):
    """u(x) = normalised mapper(base(purifier(x))): what docs/theory.md section 1 calls the base encoder.

    Noise is added before the purifier, so that certificates and attacks are about all three parts. Texts are those of
    the base encoder: a mapper moves image features inside the joint space. A part that returns NaN gives a feature
    without a direction, which comes out as NaN.

    Args:
        base: the encoder.
        purifier: (B, 3, H, W) to the same, float32; None for none.
        mapper: (B, d) unit features to (B, d), float32; None for none. One with the attribute ``tokens`` maps patch
            tokens (B, T, d') instead, which no certificate is about.
        name: what the user called the defence; the encoder's name is that of the base with it.
        parts_digest: hex digest of purifier and mapper; enters ``digest``.

    Attributes:
        base: as given.
        purifier: as given.
        mapper: of pooled features, or None.
        token_mapper: of patch tokens, or None.

    Raises:
        EncoderError: the mapper changes the size of features, or the purifier that of images.
    """

    def __init__(
        self,
        base: Encoder,
        *,
        purifier: torch.nn.Module | None,
        mapper: torch.nn.Module | None,
        name: str,
        parts_digest: str,
    ) -> None:
        parts = [part.to(base.device) for part in (purifier, mapper) if part is not None]
        super().__init__(
            name=f"{base.name} with {name}",
            digest=hashlib.sha256(f"{base.digest} {parts_digest}".encode()).hexdigest(),
            feature_dim=base.feature_dim,
            input_size=base.input_size,
            device=base.device,
            dtype=base.dtype,
            modules=parts,
        )
        self.base = base
        self.probe_texts = base.probe_texts
        self.purifier = purifier
        maps_tokens = mapper is not None and any(getattr(part, "tokens", False) for part in mapper.modules())
        self.mapper = None if maps_tokens else mapper
        self.token_mapper = mapper if maps_tokens else None
        self._try_parts(name)

    def _try_parts(self, name: str) -> None:
        image = (1, 3, *self.input_size)
        given: list[tuple[str, torch.nn.Module, tuple[int, ...]]] = []
        if self.purifier is not None:
            given.append(("purifier", self.purifier, image))
        if self.mapper is not None:
            given.append(("mapper", self.mapper, (1, self.feature_dim)))
        if self.token_mapper is not None:
            given.append(("mapper", self.token_mapper, shape_of_tokens(self.base)))
        for part, module, wanted in given:
            try:
                with torch.no_grad():
                    made = module(torch.ones(wanted, device=self.device))
            except (SmoothcertError, MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as exc:  # whatever its own code raises
                raise EncoderError(
                    f"defence '{name}': its {part} fails on a tensor of {wanted}: {type(exc).__name__}: {exc}",
                    remedy=f"check the shapes of its weights; a {part} takes one tensor and returns one of its shape",
                ) from exc
            if not isinstance(made, torch.Tensor) or tuple(made.shape) != wanted:
                what = tuple(made.shape) if isinstance(made, torch.Tensor) else f"a {type(made).__name__}"
                raise EncoderError(
                    f"defence '{name}': its {part} makes {what} of a tensor of {wanted}",
                    remedy=f"use a {part} that returns a tensor of the shape of its input",
                )

    def straight_through(self) -> DefendedEncoder:
        """The same features, with gradients that pass the purifier as though it were the identity (BPDA)."""
        if self.purifier is None:
            return self
        same = copy.copy(self)
        same.purifier = _StraightThrough(self.purifier)
        return same

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """See ``Encoder.prepare``."""
        return self.base.prepare(image)

    @property
    def has_texts(self) -> bool:
        """See ``Encoder.has_texts``."""
        return self.base.has_texts

    @property
    def text_limit(self) -> int | None:
        """See ``Encoder.text_limit``."""
        return self.base.text_limit

    def read_texts(self, texts: Sequence[str]) -> list[ReadText]:
        """See ``Encoder.read_texts``."""
        return self.base.read_texts(texts)

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        features = self.base.encode_images(self._purified(pixels))
        return features if self.mapper is None else self.mapper(features)

    def _patch_features(self, pixels: torch.Tensor) -> torch.Tensor:
        tokens = self.base.encode_patches(self._purified(pixels))
        return tokens if self.token_mapper is None else self.token_mapper(tokens)

    def _text_features(self, texts: Sequence[str]) -> torch.Tensor:
        return self.base.encode_texts(texts)

    def _purified(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels if self.purifier is None else self.purifier(pixels.float())


def shape_of_tokens(encoder: Encoder) -> tuple[int, int, int]:
    """(1, T, d'): the patch tokens of one image.

    Raises:
        EncoderError: the encoder shows none.
    """
    with torch.no_grad():
        tokens = encoder.encode_patches(torch.ones((1, 3, *encoder.input_size), device=encoder.device))
    _, count, width = tokens.shape
    return 1, count, width


class _StraightThrough(torch.nn.Module):
    """A module's output with the gradient of its input (Athalye et al. 2018, arXiv 1802.00420)."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            change = self.module(pixels) - pixels
        passed: torch.Tensor = pixels + change
        return passed
