"""The contract that every encoder keeps, and the checks that hold it to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch

from smoothcert.errors import EncoderError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


@dataclass(frozen=True, slots=True)
class ReadText:
    """What an encoder reads of a text.

    Attributes:
        content: texts with the same content have the same feature.
        cut: the text is longer than what is read.
    """

    content: Hashable
    cut: bool = False


class Encoder(ABC):
    """Makes unit features u(x) of canonical inputs x (docs/theory.md section 1).

    x is what the encoder's own image processor makes *before* rescaling and normalising, divided by 255:
    RGB, shape (3, H, W), units of [0,1]. Noise is added to x, so x may leave [0,1]; nothing is clamped here.
    Everything after x belongs to u, the mean/std normalisation included.

    Guarantees:
        * modules are in evaluation mode; every call checks it and raises ``EncoderError`` otherwise;
        * parameters do not require gradients, pixels may: ``encode_images`` is differentiable;
        * features are L2-normalised in float32, whatever ``dtype`` the network computes in;
        * a feature that has no direction (NaN, infinity, all zeros) comes out as NaN, never as a number,
          for the caller to quarantine;
        * the feature of an image or a text does not depend on the rest of its batch, up to rounding, and texts
          that say different things have different features (``check_encoder``).

    Subclasses set the attributes through ``__init__`` and implement ``prepare``, ``_image_features`` and
    ``_text_features``, and ``_patch_features`` where they have local features. An encoder without a text space
    overrides ``has_texts``, one that cuts long texts ``read_texts`` and ``text_limit``. Wrap an encoder to change
    it; do not override the ``encode_*`` methods.

    Attributes:
        name: what the user called it; for people.
        digest: hex sha256 of what determines its features (weights, configuration, feature, dtype).
        feature_dim: d.
        input_size: (H, W) of x.
        device: where pixels are expected.
        dtype: arithmetic inside the network.
        modules: all of the network's modules, children included.
        notes: sentences that whoever uses it should read, e.g. that it was trained for other noise.
    """

    notes: tuple[str, ...] = ()

    probe_texts: tuple[str, ...] = ("a", "a photo", "a photo of seven", "seven", "of seven")
    """Different texts that ``check_encoder`` tries; override them where these words mean nothing to the encoder.
    Some must begin with others: a tower that does not see the end of a text takes those for the same."""

    def __init__(
        self,
        *,
        name: str,
        digest: str,
        feature_dim: int,
        input_size: tuple[int, int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        modules: Sequence[torch.nn.Module] = (),
    ) -> None:
        self.name = name
        self.digest = digest
        self.feature_dim = feature_dim
        self.input_size = input_size
        self.device = torch.device(device)
        self.dtype = dtype
        for module in modules:
            module.eval().requires_grad_(False)
        # Flat, once: walking the tree on every call would cost more than the check itself.
        self.modules = tuple(child for module in modules for child in module.modules())

    @abstractmethod
    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Canonical input of an image, times 255.

        Args:
            image: any size and mode.

        Returns:
            uint8, shape (3, H, W), RGB.

        Raises:
            DecodeError: this image cannot be brought to the encoder's grid.
        """

    @abstractmethod
    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Unnormalised features (B, d) in any float type, of checked pixels (B, 3, H, W)."""

    @abstractmethod
    def _text_features(self, texts: Sequence[str]) -> torch.Tensor:
        """Unnormalised features (k, d) in any float type, on any device, of at least one text."""

    @final
    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Unit features of a batch of (noisy) inputs.

        Args:
            pixels: float (B, 3, H, W) on ``device``, in units of [0,1]; values may leave [0,1].

        Returns:
            float32 (B, d) on ``device``, unit norm; rows without a direction are NaN.

        Raises:
            EncoderError: wrong shape or type, or a module was switched to training mode.
        """
        self._check_evaluation_mode()
        self._check_pixels(pixels)
        return unit_rows(self._image_features(pixels))

    @final
    def encode_patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """Local features, for attacks that match parts of images; no certificate is about them.

        Args:
            pixels: as for ``encode_images``.

        Returns:
            float32 (B, T, d'), one token a patch, the class token left out; not normalised, differentiable.

        Raises:
            EncoderError: this encoder shows none; or as ``encode_images``.
        """
        self._check_evaluation_mode()
        self._check_pixels(pixels)
        return self._patch_features(pixels).float()

    @final
    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit features of texts.

        Returns:
            float32 (k, d) on the CPU, unit norm, without gradients.

        Raises:
            EncoderError: the encoder has no text space, or a module was switched to training mode.
        """
        self._check_evaluation_mode()
        if isinstance(texts, str):
            raise EncoderError(
                f"encode_texts was given one string, {texts!r}", remedy="give a list of strings"
            )
        if not texts:
            return torch.empty((0, self.feature_dim), dtype=torch.float32)
        with torch.no_grad():
            return unit_rows(self._text_features(texts)).cpu()

    @property
    def has_texts(self) -> bool:
        """Whether there is a text space: ``encode_texts`` works."""
        return True

    @property
    def text_limit(self) -> int | None:
        """Tokens of a text that are read, what marks its ends included; None where nothing is cut."""
        return None

    def read_texts(self, texts: Sequence[str]) -> list[ReadText]:
        """What is read of each text, without the cost of encoding it."""
        return [ReadText(text) for text in texts]

    def _patch_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Patch tokens (B, T, d') in any float type, of checked pixels; override where there are any."""
        raise EncoderError(
            f"encoder '{self.name}' has no patch features", remedy="use a CLIP or SigLIP encoder"
        )

    def _check_pixels(self, pixels: torch.Tensor) -> None:
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != (3, *self.input_size):
            raise EncoderError(
                f"encoder '{self.name}' was given pixels of shape {tuple(pixels.shape)}",
                remedy=f"give (B, 3, {self.input_size[0]}, {self.input_size[1]}), as prepare() makes them",
            )
        if not pixels.is_floating_point():
            raise EncoderError(
                f"encoder '{self.name}' was given pixels of type {pixels.dtype}",
                remedy="give floats in units of [0,1]: divide what prepare() makes by 255",
            )

    def _check_evaluation_mode(self) -> None:
        for module in self.modules:
            if module.training:
                raise EncoderError(
                    f"encoder '{self.name}' has a {type(module).__name__} in training mode: its features are "
                    "random, and no certificate would hold",
                    remedy="call .eval() on the model, and do not call .train() while it certifies",
                )


def unit_rows(features: torch.Tensor) -> torch.Tensor:
    """Rows divided by their L2 norm, in float32; a row without a direction becomes NaN.

    Each row is first divided by its largest entry, so that squares neither overflow nor vanish: an overflowed
    norm would turn a broken feature into zeros, which look like a number.
    """
    features = features.float()
    largest = features.detach().abs().amax(dim=-1, keepdim=True)
    scaled = features / largest
    norms: torch.Tensor = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return scaled / norms
