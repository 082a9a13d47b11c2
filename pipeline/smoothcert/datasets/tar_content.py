"""The bytes of a member of an archive, also where they lie elsewhere (hard links) or in pieces (sparse members)."""

from __future__ import annotations

import os
from typing import BinaryIO

from smoothcert.datasets.tar_members import DamagedTarError, Member, read_members
from smoothcert.errors import ReadError

MOST_MEMBER_BYTES = 1 << 29


def member_bytes(stream: BinaryIO, member: Member) -> bytes:
    """All bytes of the file that a member stands for.

    The target of a hard link is looked for by walking over the headers before the link, at every call: such
    archives are rare, and nothing but the link itself need be remembered of them.

    Raises:
        ReadError: they cannot be read, or are more than ``MOST_MEMBER_BYTES``.
    """
    if member.link:
        target = _target(stream, member)
        if target is None:
            raise ReadError(
                f"member '{member.name}' is a hard link to '{member.link}', which is not a file before it",
                remedy="pack the archive again with the files themselves (tar --hard-dereference)",
            )
        member = target
    if member.problem:
        raise ReadError(f"member '{member.name}': {member.problem}", remedy="restore the archive")
    if member.size > MOST_MEMBER_BYTES:
        raise ReadError(
            f"member '{member.name}' has {member.size} bytes, more than {MOST_MEMBER_BYTES}",
            remedy="shrink it or remove the sample",
        )
    stream.seek(member.data)
    if member.segments is None:
        return _exactly(stream, member.size, member.name)
    content = bytearray(member.size)
    for offset, length in member.segments:
        content[offset : offset + length] = _exactly(stream, length, member.name)
    return bytes(content)


def _exactly(stream: BinaryIO, length: int, name: str) -> bytes:
    content = stream.read(length)
    if len(content) < length:
        raise ReadError(f"member '{name}' ends too early", remedy="restore the archive")
    return content


def _target(stream: BinaryIO, link: Member) -> Member | None:
    """The last file of the link's target name before the link."""
    wanted, found = link.link.removeprefix("./"), None
    try:
        for member in read_members(stream, 0, stream.seek(0, os.SEEK_END)):
            if member.start >= link.start:
                break
            if member.name.removeprefix("./") == wanted:
                found = member
    except DamagedTarError:
        return None
    if found is not None and found.link:
        return _target(stream, found)  # ends: the target lies before it
    return found
