"""Images as people hold them, as the bytes that a data set would hold: from there on both go the same way."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from PIL import Image
from PIL.Image import Image as PillowImage

from smoothcert.errors import JobError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    ImageLike: TypeAlias = PillowImage | NDArray[Any] | torch.Tensor | bytes | str | os.PathLike[str]
else:
    ImageLike = Any

_GRID = 1e-6
"""How far a number in [0, 1] may be from k/255: rounding of float32 and of float64."""


def as_batch(images: ImageLike | Sequence[ImageLike]) -> list[ImageLike]:
    """One image or several, as a list; an array or tensor of four axes is several."""
    if isinstance(images, (bytes, str, os.PathLike, PillowImage)):
        return [images]
    if hasattr(images, "ndim"):
        return list(images) if images.ndim == 4 else [cast(ImageLike, images)]
    return list(images)


def encoded(image: ImageLike, position: int) -> bytes:
    """The bytes of an image file that holds exactly these pixels.

    Args:
        image: a PIL image; a path; the bytes of a file; or pixels: uint8, or floats k/255 in [0, 1], of shape
            (3, H, W) or (H, W, 3).
        position: among the images, for errors.

    Raises:
        JobError: it is none of these, or its numbers are no pixels.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, (str, os.PathLike)):
        try:
            return Path(image).read_bytes()
        except OSError as exc:
            raise JobError(
                f"images[{position}]: cannot read '{image}': {exc}", remedy="check the path"
            ) from exc
    picture = image if isinstance(image, PillowImage) else Image.fromarray(_pixels(image, position))
    stream = io.BytesIO()
    # PNG keeps every pixel; what it cannot hold is no 8-bit image
    if picture.mode not in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"):
        picture = picture.convert("RGB")
    picture.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _pixels(image: Any, position: int) -> NDArray[np.uint8]:
    array = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        array = np.moveaxis(array, 0, 2)
    elif array.ndim == 3 and array.shape[0] == 3 == array.shape[2] and hasattr(image, "detach"):
        array = np.moveaxis(array, 0, 2)  # tensors have their channels first
    if array.ndim != 3 or array.shape[2] != 3:
        raise JobError(
            f"images[{position}] has shape {tuple(np.shape(image))}",
            remedy="give (3, H, W) or (H, W, 3), or a batch of them",
        )
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise JobError(
            f"images[{position}] holds {array.dtype}", remedy="give uint8, or floats between 0 and 1"
        )
    scaled = array.astype(np.float64) * 255.0
    pixels = np.rint(scaled)
    if not np.isfinite(scaled).all() or pixels.min() < 0 or pixels.max() > 255:
        raise JobError(
            f"images[{position}] holds numbers outside of [0, 1]",
            remedy="give the image before any normalisation: the encoder does that itself",
        )
    if np.abs(scaled - pixels).max() > 255.0 * _GRID:
        raise JobError(
            f"images[{position}] holds numbers that are not k/255, so a certificate would be about another image",
            remedy="round it first, (255 * x).round() / 255, and attack what was rounded",
        )
    return np.ascontiguousarray(pixels.astype(np.uint8))
