"""From an image to x: the model's own image processor, split where the noise goes in.

A transformers image processor resizes, crops, rescales and normalises in one call. Noise belongs between the
crop and the normalisation (docs/theory.md section 4.7), so the call is split: the processor itself makes the
8-bit grid, and what follows is an affine map that the encoder applies to noisy pixels.
"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from smoothcert.errors import DecodeError, EncoderError

if TYPE_CHECKING:
    import torch

_MAX_RESIZED_PIXELS = 2**26
"""A 1 x 100,000 image, resized to a shortest edge of 224, would need 15 GB; panoramas stay far below."""

_REMEDY = "correct preprocessor_config.json, or take the file of the model that this one was made from"


class Preparation:
    """An image processor, as ``prepare`` (image to 8-bit x) and an affine map (x to what the network reads).

    The network's input is ``x * scale + shift``, per channel, with x in units of [0,1].

    Args:
        processor: a transformers image processor of the PIL backend.
        model: the encoder's name, for messages.

    Attributes:
        input_size: (H, W) of x.
        scale: float64 (3,).
        shift: float64 (3,).

    Raises:
        EncoderError: the processor has no fixed output size, or does something between crop and network
            that is not this affine map.
    """

    def __init__(self, processor: Any, *, model: str) -> None:
        self._processor = processor
        self._model = model
        self.scale, self.shift = normalisation(processor, model=model)
        self.input_size = self._verify()

    def lay_out(self, normalised: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the network reads, by name, of normalised inputs (B, 3, H, W): here just these."""
        return {"pixel_values": normalised}

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Canonical input times 255: uint8 (3, H, W).

        Raises:
            DecodeError: the image is too elongated to resize, or the processor refuses it.
        """
        grid = self._grid(image)
        if grid.shape != (3, *self.input_size):
            raise DecodeError(
                f"the image processor of '{self._model}' made shape {grid.shape} of a "
                f"{image.width}x{image.height} {image.mode} image; expected {(3, *self.input_size)}"
            )
        return grid

    def save(self, directory: str | PathLike[str]) -> None:
        """Write the image processor's settings into a model's directory."""
        self._processor.save_pretrained(directory)

    def _grid(self, image: Image.Image) -> NDArray[np.uint8]:
        self._refuse_elongated(image)
        if not self._processor.do_convert_rgb and image.mode != "RGB":
            image = image.convert("RGB")
        try:
            out = self._processor(images=image, do_rescale=False, do_normalize=False)["pixel_values"][0]
        except (ValueError, TypeError, OSError) as exc:
            raise DecodeError(
                f"the image processor of '{self._model}' refuses a {image.width}x{image.height} {image.mode} "
                f"image: {exc}"
            ) from exc
        grid = np.asarray(out)
        if grid.dtype != np.uint8:
            raise EncoderError(
                f"the image processor of '{self._model}' made {grid.dtype} where 8-bit pixels were expected",
                remedy="use a model whose image processor resizes and crops 8-bit images",
            )
        return np.ascontiguousarray(grid)

    def _refuse_elongated(self, image: Image.Image) -> None:
        edge = getattr(self._processor.size, "shortest_edge", None)
        if not (self._processor.do_resize and edge):
            return
        refuse_elongated(image, edge / max(min(image.size), 1))

    def _verify(self) -> tuple[int, int]:
        """Compare with the unsplit processor on noise of several shapes; returns (H, W)."""
        noise = np.random.default_rng(0).integers(0, 256, (97, 131, 3), dtype=np.uint8)
        sizes = set()
        for probe in (noise, noise.transpose(1, 0, 2), noise[:, :97]):
            image = Image.fromarray(np.ascontiguousarray(probe))
            try:
                grid = self._grid(image)
                whole = np.asarray(self._processor(images=image)["pixel_values"][0], dtype=np.float64)
            except DecodeError as exc:
                raise EncoderError(f"encoder.model='{self._model}': {exc.message}", remedy=_REMEDY) from exc
            except EncoderError:
                raise
            except Exception as exc:  # odd settings end in whatever the processor's own code raises
                raise EncoderError(
                    f"encoder.model='{self._model}': its image processor fails on an ordinary image: "
                    f"{type(exc).__name__}: {exc}",
                    remedy=_REMEDY,
                ) from exc
            sizes.add(grid.shape)
            ours = grid / 255.0 * self.scale[:, None, None] + self.shift[:, None, None]
            if whole.shape != ours.shape or not np.allclose(
                whole, ours, rtol=0, atol=1e-4 * np.max(self.scale)
            ):
                raise EncoderError(
                    f"encoder.model='{self._model}': its image processor does more after the crop than "
                    "rescale and normalise, so smoothcert cannot tell where to add the noise",
                    remedy="use a model whose preprocessing ends with a mean/std normalisation",
                )
        if len(sizes) != 1:
            raise EncoderError(
                f"encoder.model='{self._model}': its image processor has no fixed output size "
                f"({sorted(sizes)}), and a radius needs one grid",
                remedy="set do_center_crop and crop_size, or a height and width, in preprocessor_config.json",
            )
        _, height, width = sizes.pop()
        return int(height), int(width)


def normalisation(processor: Any, *, model: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and shift (3,) that an image processor's rescaling and normalising amount to, for x in units of [0,1].

    Raises:
        EncoderError: a setting is no number that normalises.
    """
    factor = _setting(processor, "rescale_factor", 1, model) if processor.do_rescale else np.ones(1)
    mean, deviation = np.zeros(3), np.ones(3)
    if processor.do_normalize:
        mean = _setting(processor, "image_mean", 3, model)
        deviation = _setting(processor, "image_std", 3, model)
    return 255.0 * factor / deviation, -mean / deviation


def _setting(processor: Any, field: str, count: int, model: str) -> NDArray[np.float64]:
    """A setting that is ``count`` numbers, or one number for all of them; means may be zero or below."""
    value = getattr(processor, field, None)
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.full(count, np.nan)
    usable = np.isfinite(numbers) & ((numbers > 0) | (field == "image_mean"))
    if numbers.shape not in ((), (count,)) or not usable.all():
        wanted = "one positive number" if count == 1 else f"{count} numbers, one a channel"
        raise EncoderError(
            f"encoder.model='{model}': {field}={value!r} in preprocessor_config.json; expected {wanted}"
            + (", all above 0" if field == "image_std" else ""),
            remedy=f"correct {field}, or take the file of the model that this one was made from",
        )
    return np.broadcast_to(numbers, count)


def crop_to(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """An RGB image of ``size`` (H, W): resized until the shorter edge fits, the middle of the longer one kept.

    Raises:
        DecodeError: the image is too elongated to resize.
    """
    height, width = size
    image = image if image.mode == "RGB" else image.convert("RGB")
    scale = max(width / image.width, height / image.height)
    refuse_elongated(image, scale)
    # int() as torchvision cuts the longer edge; never below what is cut out
    edges = (max(width, int(image.width * scale)), max(height, int(image.height * scale)))
    image = image.resize(edges, resample)
    left, top = round((edges[0] - width) / 2), round((edges[1] - height) / 2)
    return image.crop((left, top, left + width, top + height))


def refuse_elongated(image: Image.Image, scale: float) -> None:
    """Raise ``DecodeError`` if an image, resized by ``scale``, would have too many pixels."""
    if image.width * scale * image.height * scale > _MAX_RESIZED_PIXELS:
        raise DecodeError(
            f"a {image.width}x{image.height} image is too elongated: resized to {image.width * scale:.0f}x"
            f"{image.height * scale:.0f} it would have more than {_MAX_RESIZED_PIXELS} pixels",
            remedy="crop it or remove the pair",
        )
