"""The members of a tar archive by their headers alone, from any member on, also of an archive that was cut.

Formats: v7, ustar, GNU long names, and pax (POSIX.1-2001) records for path and size. Not: sparse members.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 512
_ZERO = bytes(BLOCK)
_MOST_NAME_BYTES = 1 << 20


class DamagedTarError(Exception):
    """The bytes at an offset are not a tar header: what follows cannot be found."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"byte {offset}: {reason}")


@dataclass(slots=True)
class Member:
    """One file in an archive.

    Attributes:
        name: its path; empty when the archive ends before it is known whether there is another member.
        start: where its headers begin.
        data: where its bytes begin.
        size: how many there should be.
        problem: why they cannot be read, or empty.
    """

    name: str
    start: int
    data: int
    size: int
    problem: str = ""


def read_members(
    stream: BinaryIO, start: int, size: int, *, on_header: Callable[[bytes], object] | None = None
) -> Iterator[Member]:
    """Files and links of an archive in order; folders and the like are left out.

    Args:
        stream: the archive; its position may be moved between items.
        start: offset of a member's headers.
        size: size of the archive in bytes. A member that would end after it has a ``problem`` and is the
            last. Without an end mark, a member without a name and with a ``problem`` is the last.
        on_header: called with each header block.

    Raises:
        DamagedTarError: a header is damaged or of an unknown kind.
    """
    position = begin = start
    name, true_size = "", -1
    ended = False
    while position < size:
        stream.seek(position)
        block = stream.read(BLOCK)
        if block == _ZERO[: len(block)]:
            ended, position = True, position + BLOCK  # archives may be joined: look behind the end mark
            begin = position
            continue
        if len(block) < BLOCK:
            break
        if not _is_header(block):
            if ended:
                return  # padding after the end mark
            raise DamagedTarError(position, _what(block, position))
        ended = False
        if on_header is not None:
            on_header(block)
        kind, length, data = block[156:157], _number(block[124:136], position), position + BLOCK
        if kind in b"Lxg":
            if data + length > size:
                yield Member("", begin, size, 0, f"the archive ends inside a long name, at byte {size}")
                return
            name, true_size = _extension(stream, kind, length, data, name, true_size)
            position = _after(data, length)
            continue
        if kind == b"S":
            raise DamagedTarError(position, "sparse members are not supported; pack the archive without them")
        length = true_size if true_size >= 0 else length
        name = name or _name(block)
        if kind in b"\x0007" and not name.endswith("/"):
            cut = data + length > size
            problem = (
                f"the archive ends at byte {size}, {data + length - size} bytes too early" if cut else ""
            )
            yield Member(name, begin, data, length, problem)
            if problem:
                return
        elif kind in b"12":
            yield Member(name, begin, data, 0, "it is a link, not a file")
            length = 0
        position = begin = _after(data, length)
        name, true_size = "", -1
    if not ended:
        yield Member("", min(begin, size), size, 0, f"the archive ends at byte {size}, without its end mark")


def _after(data: int, length: int) -> int:
    return data + -(-length // BLOCK) * BLOCK


def _is_header(block: bytes) -> bool:
    try:
        stated = int(block[148:156].split(b"\0")[0].strip() or b"-1", 8)
    except ValueError:
        return False
    expected = stated + sum(block[148:156]) - 8 * 32  # the field itself counts as blanks
    # The low half of Adler-32 is the sum of the bytes plus one, modulo 65521: a fast way to add them.
    return (zlib.adler32(block) & 0xFFFF) == (expected + 1) % 65521


def _number(digits: bytes, position: int) -> int:
    if digits[0] & 0x80:  # GNU: base 256
        return int.from_bytes(bytes([digits[0] & 0x7F]) + digits[1:], "big")
    try:
        value = int(digits.split(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        value = -1
    if value < 0:
        raise DamagedTarError(position, f"a member's size reads {digits!r}")
    return value


def _name(block: bytes) -> str:
    name = _until_nul(block[:100])
    if block[257:263] == b"ustar\0" and block[345]:
        name = _until_nul(block[345:500]) + "/" + name
    return name


def _extension(
    stream: BinaryIO, kind: bytes, length: int, data: int, name: str, true_size: int
) -> tuple[str, int]:
    """The next member's name and size after an extension header; what it does not say stays."""
    if kind == b"g" or length > _MOST_NAME_BYTES:
        return name, true_size
    stream.seek(data)
    content = stream.read(length)
    if kind == b"L":
        return _until_nul(content), true_size
    while content:
        digits, blank, _ = content.partition(b" ")
        if not blank or not digits.isdigit() or not 0 < int(digits) <= len(content):
            break
        key, _, value = content[len(digits) + 1 : int(digits) - 1].partition(b"=")
        if key == b"path":
            name = _text(value)
        elif key == b"size" and value.isdigit():
            true_size = int(value)
        content = content[int(digits) :]
    return name, true_size


def _until_nul(field: bytes) -> str:
    return _text(field.split(b"\0", 1)[0])


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _what(block: bytes, position: int) -> str:
    if position == 0:
        marks = (
            (b"\x1f\x8b", "gzip"),
            (b"BZh", "bzip2"),
            (b"\xfd7zXZ", "xz"),
            (b"\x28\xb5\x2f\xfd", "zstandard"),
        )
        for mark, packer in marks:
            if block.startswith(mark):
                return f"this is {packer} data, not a tar archive"
        return f"{block[:12]!r} does not begin a tar archive"
    return "a header is damaged, and what follows cannot be found"
