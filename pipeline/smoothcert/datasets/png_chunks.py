"""PNG files without the texts and profiles that no pixel needs, however large they are.

Pillow refuses texts and profiles of more than 1 MiB, by a setting of the whole process: pictures from generators and
editors carry their history there. What can say how an image is turned (EXIF and XMP) is kept.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_EXIF = (b"Raw profile type exif", b"Raw profile type APP1")
_XMP = b"XML:com.adobe.xmp"
_MOST_XMP_BYTES = 1 << 26
_PLAIN_BYTES = 1 << 16
_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)[0-9]')


def without_texts(data: bytes) -> bytes:
    """The same picture in a file that Pillow opens; the data itself where it is no whole row of chunks."""
    kept = [SIGNATURE]
    try:
        for kind, start, stop in _chunks(data):
            if kind == b"iCCP":
                continue
            if kind not in _TEXTS:
                kept.append(data[start:stop])
            elif (chunk := _needed(kind, data, start, stop)) is not None:
                kept.append(chunk)
    except (struct.error, zlib.error, IndexError):
        return data
    return b"".join(kept)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, stop) of each chunk, and what follows the last one as if it were one."""
    position = len(SIGNATURE)
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        stop = position + 12 + length
        if stop > len(data):
            yield b"", position, len(data)  # cut: the decoder says so
            return
        yield kind, position, stop
        if kind == b"IEND":
            return
        position = stop


def _needed(kind: bytes, data: bytes, start: int, stop: int) -> bytes | None:
    """A text chunk that may say how the image is turned, small; None for others."""
    keyword, _, rest = data[start + 8 : stop - 4].partition(b"\0")
    if keyword in _EXIF:
        return data[start:stop]
    if keyword != _XMP:
        return None
    if stop - start < _PLAIN_BYTES and not (kind == b"zTXt" or rest[:1] == b"\1"):
        return data[start:stop]
    text = _xmp(kind, rest)
    found = _ORIENTATION.search(text)
    if found is None:
        return None
    body = b"iTXt" + _XMP + b"\0\0\0\0\0" + found.group()
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def _xmp(kind: bytes, rest: bytes) -> bytes:
    packed = kind == b"zTXt"
    if kind == b"zTXt":
        rest = rest[1:]
    elif kind == b"iTXt":
        packed, rest = rest[0] == 1, rest[2:].split(b"\0", 2)[2]
    return zlib.decompressobj().decompress(rest, _MOST_XMP_BYTES) if packed else rest
