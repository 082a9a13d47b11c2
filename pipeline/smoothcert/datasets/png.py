"""A small PNG writer: the pixels decide the bytes, and it is fast for small images."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RGB_8BIT = bytes((8, 2, 0, 0, 0))  # bit depth, colour type, compression, filter, interlace


def encode_pngs(images: npt.NDArray[np.uint8], *, level: int = 1) -> Iterator[bytes]:
    """PNG files of RGB images, without row filters.

    Args:
        images: uint8 (count, height, width, 3).
        level: zlib's, 0 to 9; 1 is fast, 9 is small.
    """
    count, height, width, _ = images.shape
    rows = np.zeros((count, height, 1 + 3 * width), np.uint8)  # each row begins with its filter, 0
    rows[:, :, 1:] = images.reshape(count, height, 3 * width)
    head = _SIGNATURE + _chunk(b"IHDR", struct.pack(">II", width, height) + _RGB_8BIT)
    tail = _chunk(b"IEND", b"")
    for image in rows:
        yield head + _chunk(b"IDAT", zlib.compress(image, level)) + tail


def _chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
