"""From encoded bytes to an RGB image, or to a clear reason why not."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL import ImageFile as loading
from PIL.Image import Image, fromarray
from PIL.ImageFile import ImageFile

from smoothcert.datasets.png_chunks import without_texts
from smoothcert.datasets.tiff import bits_of, check_colours, is_inverted
from smoothcert.errors import DecodeError, SourceError

_KINDS: tuple[tuple[str, Callable[[bytes], bool], Callable[[io.BytesIO], ImageFile]], ...] = (
    ("JPEG", lambda head: head.startswith(b"\xff\xd8\xff"), JpegImagePlugin.JpegImageFile),
    ("PNG", lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    ("WebP", lambda head: head.startswith(b"RIFF") and head[8:12] == b"WEBP", WebPImagePlugin.WebPImageFile),
    ("GIF", lambda head: head.startswith((b"GIF87a", b"GIF89a")), GifImagePlugin.GifImageFile),
    (
        "TIFF",
        lambda head: head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
        TiffImagePlugin.TiffImageFile,
    ),
    ("BMP", lambda head: head.startswith(b"BM"), BmpImagePlugin.BmpImageFile),
)
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")


def decode_image(data: bytes, *, max_pixels: int) -> Image:
    """The first frame as an upright 8-bit RGB image, as common loaders show it.

    JPEG, PNG, WebP, GIF, BMP and TIFF. EXIF orientation is applied. Transparency is dropped, not
    composited: the colour stored under a transparent pixel is kept, as ``convert("RGB")`` in training
    pipelines does. CMYK is converted without colour profile. 16-bit grey is scaled to 8 bits, white to white.
    No gamma and no transfer function is applied. Texts and profiles in the file do not matter, whatever their size.

    The declared size is checked before anything is decoded, without Pillow's process-wide limit and its
    warning, so threads may use different limits.

    Args:
        data: the encoded image.
        max_pixels: largest width x height accepted.

    Raises:
        DecodeError: the bytes are no image of these kinds, are damaged or cut short, or declare too many
            pixels.
        SourceError: this process tells Pillow to accept images that were cut.
    """
    if loading.LOAD_TRUNCATED_IMAGES:
        raise SourceError(
            "Pillow's LOAD_TRUNCATED_IMAGES is on in this process: truncated images would pass as complete ones",
            remedy="remove the code that sets PIL.ImageFile.LOAD_TRUNCATED_IMAGES",
        )
    if not data:
        raise DecodeError("the image has 0 bytes", remedy="restore the image or remove the pair")
    found = next(((kind, opener) for kind, matches, opener in _KINDS if matches(data[:16])), None)
    if found is None:
        raise DecodeError(
            f"{len(data)} bytes that begin with {data[:12]!r} are not an image{_guess(data[:64])}",
            remedy="use JPEG, PNG, WebP, GIF, BMP or TIFF",
        )
    kind, opener = found
    try:
        if kind == "WebP":  # its decoder claims the canvas when it is opened
            _check_size(_webp_size(data), max_pixels, kind)
        with opener(io.BytesIO(without_texts(data) if kind == "PNG" else data)) as image:
            _check_size(image.size, max_pixels, kind)
            bits, inverted = 16, False
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                check_colours(image)
                bits, inverted = bits_of(image), is_inverted(image)
            image.load()
            _turn_upright(image)
            return _rgb(image, kind, bits, inverted)
    except DecodeError:
        raise
    except MemoryError as exc:
        raise DecodeError(
            f"{kind} of {len(data)} bytes needs too much memory", remedy="lower data.max_pixels"
        ) from exc
    except Exception as exc:  # decoders raise nearly anything on hostile bytes
        unknown = kind == "TIFF" and "mode" in str(exc)
        raise DecodeError(
            f"{kind} of {len(data)} bytes cannot be decoded: {exc or type(exc).__name__}",
            remedy="save the image as RGB with 8 bits"
            if unknown
            else "restore the image: it is damaged or truncated",
        ) from exc


def _check_size(size: tuple[int, int], max_pixels: int, kind: str) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise DecodeError(f"{kind} of {width}x{height} pixels is empty", remedy="remove the pair")
    if width * height > max_pixels:
        raise DecodeError(
            f"{kind} declares {width}x{height} = {width * height} pixels, more than max_pixels={max_pixels}",
            remedy="shrink the image, or raise data.max_pixels if you trust the source",
        )


def _turn_upright(image: Image) -> None:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # an unreadable EXIF block says nothing about orientation; viewers show such images too
        return


def _rgb(image: Image, kind: str, bits: int, inverted: bool) -> Image:
    if image.mode in _SIXTEEN_BIT or (image.mode == "I" and kind == "PNG"):
        return _grey_to_rgb(image, bits, inverted)
    if image.mode in ("I", "F"):
        raise DecodeError(
            f"{kind} has 32-bit pixels (mode {image.mode}), which do not define white",
            remedy="convert the image to 8 or 16 bits",
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours; Pillow warns about the direct way
    if image.mode == "La":
        image = image.convert("LA")  # grey times alpha: there is no direct way
    return image.convert("RGB")  # a copy in any case, free of the file


def _grey_to_rgb(image: Image, bits: int, inverted: bool) -> Image:
    white = (1 << bits) - 1
    values = np.asarray(image).astype(np.uint32)
    values = np.minimum(values, white)
    if inverted:
        values = white - values
    grey = (values * 255 + white // 2) // white
    return fromarray(grey.astype(np.uint8)).convert("RGB")


def _webp_size(data: bytes) -> tuple[int, int]:
    """Canvas size from the header: RFC 9649, sections 2.5 to 2.7."""
    chunk = data[12:16]
    if chunk == b"VP8X" and len(data) >= 30:
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if chunk == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 " and len(data) >= 30:
        width, height = int.from_bytes(data[26:28], "little"), int.from_bytes(data[28:30], "little")
        return width & 0x3FFF, height & 0x3FFF
    raise DecodeError(f"WebP of {len(data)} bytes has no readable header", remedy="restore the image")


def _guess(head: bytes) -> str:
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html")):
        return " but a web page"
    if b"<svg" in text:
        return " but a vector drawing"
    if text.startswith((b"{", b"[")):
        return " but JSON"
    for mark, name in ((b"%PDF", "a PDF"), (b"PK\x03\x04", "a zip archive"), (b"\x1f\x8b", "gzip data")):
        if head.startswith(mark):
            return f" but {name}"
    if head[4:8] == b"ftyp":
        return " we read but AVIF, HEIF or a video"
    return ""
