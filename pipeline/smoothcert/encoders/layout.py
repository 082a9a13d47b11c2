"""From a grid of fixed size to what the network reads of it: tiles, patches, repeated pixels, a smaller copy.

Multimodal models cut an image into tiles, flatten it into patches, repeat its pixels, or put a smaller copy beside it.
Noise belongs before all that (docs/theory.md section 4.7): one value a pixel of x, whatever happens to the pixel then.
So what the image processor does behind x is learnt from the processor itself, once, as a linear map:

    each number that the network reads is   one number of x   (found by pictures that spell out their own positions)
                                        or  one of a tile that is x resized, by Pillow's own weights
                                        or  padding, which is the same whatever x is

and applied to noisy x in torch, where it is differentiable. A processor that does anything else is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from smoothcert.encoders.preparation import crop_to, normalisation
from smoothcert.errors import EncoderError

_PixelArray = NDArray[Any]
_DIGITS = 3
"""Pictures that spell out a position in base 256."""
_OFF_BY = 3.0
"""Grey levels by which Pillow's resizing, which rounds to 8 bits between its two passes, may be off its weights."""
_DARK, _BRIGHT = 64, 192
"""Grey levels between which resizing does not overshoot 0..255, where Pillow would cut."""


class GridPreparation:
    """An image processor of a model that takes images of any size, held to one grid.

    x is the image cropped and resized to ``size``; the processor's own work on such a grid is then what the network
    reads. Where the grid is one that the processor does not resize (a multiple of its patches or tiles), this is what
    it makes of an image of that shape.

    Args:
        processor: a transformers image processor of the PIL backend.
        size: (H, W) of x.
        model: the encoder's name, for messages.
        wanted: names of the processor's outputs that the network takes, ``pixel_values`` among them.
        settings: for each call of the processor.

    Attributes:
        input_size: ``size``.
        scale: float64 (3,): the network's numbers are ``x * scale + shift``, laid out.
        shift: float64 (3,).
        sources: int64, the shape of ``pixel_values``: for each number which one of x (3, H, W) it is; -1 padding, -2 of
            a smaller copy.

    Raises:
        EncoderError: the processor does something else with such a grid than cut, repeat, pad and resize it.
    """

    def __init__(
        self,
        processor: Any,
        size: tuple[int, int],
        *,
        model: str,
        wanted: Collection[str],
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.scale, self.shift = normalisation(processor, model=model)
        self.input_size = size
        self._processor, self._model, self._settings = processor, model, dict(settings or {})
        self._resample = Image.Resampling(int(processor.resample))
        self.sources = self._find_sources()
        self._resize: tuple[torch.Tensor, torch.Tensor] | None = None
        random = self._picture(lambda rng, shape: rng.integers(_DARK, _BRIGHT, shape))
        self._learn_resizing(random)
        whole = self._call(random)
        self._padding = float(whole["pixel_values"].reshape(-1)[np.argmax(self.sources.reshape(-1) == -1)])
        self._others = {
            name: torch.from_numpy(np.ascontiguousarray(value))
            for name, value in whole.items()
            if name in wanted and name != "pixel_values" and isinstance(value, np.ndarray)
        }
        self._index = torch.from_numpy(np.where(self.sources >= 0, self.sources, 3 * size[0] * size[1]))
        self._is_small = torch.from_numpy(self.sources == -2)
        self._verify(random, whole["pixel_values"])

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Canonical input times 255: uint8 (3, H, W).

        Raises:
            DecodeError: the image is too elongated to resize.
        """
        grid = np.asarray(crop_to(image, self.input_size, self._resample), dtype=np.uint8)
        return np.ascontiguousarray(grid.transpose(2, 0, 1))

    def lay_out(self, normalised: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the network reads, by name, of normalised inputs (B, 3, H, W); images follow each other."""
        count, device = len(normalised), normalised.device
        if self._index.device != device:
            self._index, self._is_small = self._index.to(device), self._is_small.to(device)
            self._others = {name: value.to(device) for name, value in self._others.items()}
            if self._resize is not None:
                self._resize = (self._resize[0].to(device), self._resize[1].to(device))
        flat = normalised.flatten(1)
        padded = torch.cat((flat, flat.new_full((count, 1), self._padding)), dim=1)
        laid = padded[:, self._index.reshape(-1)].reshape(count, *self._index.shape)
        if self._resize is not None:
            rows, columns = (each.to(normalised.dtype) for each in self._resize)
            small = rows @ normalised @ columns.T
            tiles = laid.reshape(count, -1, *small.shape[1:])
            laid = torch.where(self._is_small, small[:, None].expand_as(tiles).reshape(laid.shape), laid)
        # contiguous: some families view it in another shape
        batch = {"pixel_values": laid.reshape(count * laid.shape[1], *laid.shape[2:]).contiguous()}
        for name, value in self._others.items():
            repeated = value.expand(count, *value.shape)
            batch[name] = repeated.reshape(count * value.shape[0], *value.shape[1:]).contiguous()
        return batch

    def _picture(self, make: Callable[[np.random.Generator, tuple[int, ...]], _PixelArray]) -> Image.Image:
        pixels = make(np.random.default_rng(0), (*self.input_size, 3))
        return Image.fromarray(pixels.astype(np.uint8))

    def _call(self, image: Image.Image, **settings: Any) -> dict[str, Any]:
        try:
            out = self._processor(images=[image], return_tensors="np", **{**self._settings, **settings})
            return {name: out[name] for name in out}
        except Exception as exc:  # odd settings end in whatever the processor's own code raises
            raise EncoderError(
                f"encoder.model='{self._model}': its image processor fails on a grid of {self.input_size} pixels: "
                f"{type(exc).__name__}: {exc}",
                remedy="set encoder.size to a grid that suits it, e.g. a multiple of its patches or tiles",
            ) from exc

    def _grey_levels(self, image: Image.Image) -> _PixelArray:
        out = self._call(image, do_rescale=False, do_normalize=False)["pixel_values"]
        return np.asarray(out, dtype=np.float64)

    def _find_sources(self) -> NDArray[np.int64]:
        height, width = self.input_size
        positions = np.arange(3 * height * width).reshape(3, height, width).transpose(1, 2, 0) + 1
        found: Any = 0
        for digit in range(_DIGITS):
            spelt = self._picture(lambda rng, shape, digit=digit: (positions >> 8 * digit) & 255)  # type: ignore[misc]
            found = found + np.rint(self._grey_levels(spelt)).clip(0, 255).astype(np.int64) * 256**digit
        sources = found - 1
        return np.where(sources < 3 * height * width, sources, -2)

    def _learn_resizing(self, random: Image.Image) -> None:
        """Mark the tiles whose positions are not what a picture has there; they must be x resized."""
        seen, grid = self._grey_levels(random), np.asarray(random, dtype=np.float64).transpose(2, 0, 1)
        known = self.sources >= 0
        wrong = known & (grid.reshape(-1)[np.maximum(self.sources, 0)] != seen)
        wrong |= self.sources == -2
        if not wrong.any():
            return
        if seen.ndim < 4 or seen.shape[-3] != 3:
            raise self._refusal()
        tiles = seen.reshape(-1, *seen.shape[-3:])
        resized = wrong.reshape(tiles.shape).any(axis=(1, 2, 3))
        rows, columns = (
            resizing_weights(edge, to, self._resample)
            for edge, to in zip(self.input_size, tiles.shape[-2:], strict=True)
        )
        expected = rows @ grid @ columns.T
        if np.abs(tiles[resized] - expected).max() > _OFF_BY:
            raise self._refusal()
        self.sources.reshape(tiles.shape)[resized] = -2
        self._resize = (torch.from_numpy(rows).float(), torch.from_numpy(columns).float())

    def _verify(self, image: Image.Image, whole: _PixelArray) -> None:
        """Compare with the processor's own output, normalisation and padding included."""
        x = torch.from_numpy(np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 255)
        scale, shift = (torch.from_numpy(each).float()[:, None, None] for each in (self.scale, self.shift))
        ours = self.lay_out((x * scale + shift)[None])["pixel_values"].numpy()
        allowed = np.where(self.sources == -2, _OFF_BY / 255, 1e-4).reshape(ours.shape) * np.max(self.scale)
        if ours.shape != np.shape(whole) or (np.abs(ours - whole) > allowed).any():
            raise self._refusal()

    def _refusal(self) -> EncoderError:
        height, width = self.input_size
        return EncoderError(
            f"encoder.model='{self._model}': of a grid of {height}x{width} pixels its image processor makes something "
            "else than tiles, patches, repetitions or a smaller copy, so smoothcert cannot put the noise before that",
            remedy="set encoder.size: [height, width] to a grid that it does not resize, e.g. multiples of its patches "
            "or tiles",
        )


def resizing_weights(edge: int, to: int, resample: Image.Resampling) -> NDArray[np.float64]:
    """The weights (to, edge) with which Pillow resizes one edge: what it makes of unit vectors."""
    units = Image.fromarray(np.eye(edge, dtype=np.float32))
    return np.asarray(units.resize((edge, to), resample), dtype=np.float64)
