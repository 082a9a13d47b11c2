"""The members of a tar archive by their headers alone, from any member on, also of an archive that was cut.

Formats: v7, ustar, GNU long names, pax (POSIX.1-2001) records for path, link and size, and GNU's sparse members.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from smoothcert.datasets.tar_sparse import (
    BLOCK,
    Segments,
    SparseError,
    gnu_segments,
    pax_is_sparse,
    pax_segments,
)

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
        link: name of the member whose bytes these are, for a hard link; its own ``size`` is 0.
        segments: for a sparse member, the pieces of the file that lie at ``data``, one behind the other.
        cut: whether the archive ends inside it.
    """

    name: str
    start: int
    data: int
    size: int
    problem: str = ""
    link: str = ""
    segments: Segments | None = None
    cut: bool = False


@dataclass(slots=True)
class _Ahead:
    """What extension headers say of the member behind them."""

    name: str = ""
    sparse_name: str = ""
    link: str = ""
    size: int = -1
    records: list[tuple[str, str]] = field(default_factory=list)


def read_members(
    stream: BinaryIO, start: int, size: int, *, on_header: Callable[[bytes], object] | None = None
) -> Iterator[Member]:
    """Everything but folders, in order. What is neither file nor hard link comes with a ``problem``.

    Args:
        stream: the archive; its position may be moved between items.
        start: offset of a member's headers.
        size: size of the archive in bytes. A member that would end after it has a ``problem`` and is the
            last. Without an end mark, a member without a name and with a ``problem`` is the last.
        on_header: called with each header block.

    Raises:
        DamagedTarError: a header is damaged.
    """
    position = begin = start
    ahead = _Ahead()
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
        if kind in b"LKxg":
            if data + length > size:
                yield Member("", begin, size, 0, f"the archive ends inside a long name, at byte {size}")
                return
            _extend(ahead, stream, kind, length, data)
            position = _after(data, length)
            continue
        member, end = _member(stream, block, begin, position, ahead)
        if end > size:
            member.cut = True
            member.problem = (
                member.problem or f"the archive ends at byte {size}, {end - size} bytes too early"
            )
        if not (kind == b"5" or member.name.endswith("/")):
            yield member
            if end > size:
                return
        position = begin = _after(data, end - data)
        ahead = _Ahead()
    if not ended:
        yield Member("", min(begin, size), size, 0, f"the archive ends at byte {size}, without its end mark")


def _member(stream: BinaryIO, block: bytes, begin: int, position: int, ahead: _Ahead) -> tuple[Member, int]:
    """The member of a header, and where its bytes in the archive end."""
    kind, data = block[156:157], position + BLOCK
    length = ahead.size if ahead.size >= 0 else _number(block[124:136], position)
    member = Member(ahead.sparse_name or ahead.name or _name(block), begin, data, length)
    if kind == b"1":
        member.link = ahead.link or _until_nul(block[157:257])
    elif kind == b"2":
        member.problem = "it is a symbolic link, not a file"
    elif kind in b"346":
        member.problem = "it is a device or a pipe, not a file"
    elif kind not in b"\x00057S":
        member.problem = f"its kind {kind.decode('latin-1')!r} is unknown"
    if kind in b"123456":  # no bytes follow, whatever the header says
        member.size = 0
        return member, data
    if kind == b"S" or pax_is_sparse(ahead.records):
        return _sparse(stream, block, member, ahead, position)
    return member, data + length


def _sparse(
    stream: BinaryIO, block: bytes, member: Member, ahead: _Ahead, position: int
) -> tuple[Member, int]:
    stored, map_begin = member.size, member.data
    stream.seek(map_begin)
    try:
        if block[156:157] == b"S":
            real, member.segments = gnu_segments(
                block, lambda: stream.read(BLOCK), lambda digits: _number(digits, position)
            )
            member.data = max(stream.tell(), map_begin)
            end = member.data + stored
        else:
            real, member.segments, map_bytes = pax_segments(ahead.records, lambda: stream.read(BLOCK))
            member.data += map_bytes
            end = map_begin + stored
        member.size = real
        if sum(length for _, length in member.segments) > end - member.data:
            raise SparseError("its map names more bytes than are stored")
    except SparseError as exc:
        member.problem = f"it is a sparse member, and {exc}"
        end = map_begin + stored
    return member, end


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


def _extend(ahead: _Ahead, stream: BinaryIO, kind: bytes, length: int, data: int) -> None:
    """Read an extension header; what it does not say stays."""
    if kind == b"g" or length > _MOST_NAME_BYTES:
        return
    stream.seek(data)
    content = stream.read(length)
    if kind == b"L":
        ahead.name = _until_nul(content)
    elif kind == b"K":
        ahead.link = _until_nul(content)
    else:
        for key, value in _records(content):
            ahead.records.append((key, value))
            if key == "path":
                ahead.name = value
            elif key == "GNU.sparse.name":
                ahead.sparse_name = value
            elif key == "linkpath":
                ahead.link = value
            elif key == "size" and value.isascii() and value.isdigit():
                ahead.size = int(value)


def _records(content: bytes) -> Iterator[tuple[str, str]]:
    """The records of a pax header, as far as they are whole."""
    while content:
        digits, blank, _ = content.partition(b" ")
        if not blank or not digits.isdigit() or not 0 < int(digits) <= len(content):
            return
        key, _, value = content[len(digits) + 1 : int(digits) - 1].partition(b"=")
        yield _text(key), _text(value)
        content = content[int(digits) :]


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
