"""Sparse members of tar archives: which pieces of a file are stored, in GNU tar's four notations.

The old one has a header kind of its own (``S``); the others are pax records: 0.0 and 0.1 with the map in the records,
1.0 with the map in front of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Segments = tuple[tuple[int, int], ...]
"""(offset in the file, bytes) of each stored piece, in order; everything else is zero."""

BLOCK = 512
_MOST_SEGMENTS = 1 << 16
_ENTRY = 24


class SparseError(ValueError):
    """A map that cannot be."""


def gnu_segments(
    header: bytes, read_block: Callable[[], bytes], number: Callable[[bytes], int]
) -> tuple[int, Segments]:
    """Real size and pieces of a member of kind ``S``; its map may go on in blocks behind the header.

    Args:
        header: its header block.
        read_block: the next block of the archive.
        number: reads a numeric field.

    Raises:
        SparseError: the map is damaged.
    """
    entries = [header[386 + _ENTRY * i :][:_ENTRY] for i in range(4)]
    more = header[482] != 0
    while more:
        block = read_block()
        if len(block) < BLOCK or len(entries) > _MOST_SEGMENTS:
            raise SparseError("its map of pieces does not end")
        entries += [block[_ENTRY * i :][:_ENTRY] for i in range(21)]
        more = block[504] != 0
    pieces = [(number(entry[:12]), number(entry[12:])) for entry in entries if entry.strip(b"\0 ")]
    size = number(header[483:495])
    return size, _check_pieces(pieces, size)


def pax_is_sparse(records: Sequence[tuple[str, str]]) -> bool:
    """Whether pax records describe a sparse member."""
    return any(key.startswith("GNU.sparse.") for key, _ in records)


def pax_segments(
    records: Sequence[tuple[str, str]], read_block: Callable[[], bytes]
) -> tuple[int, Segments, int]:
    """Real size, pieces, and the bytes of the map in front of the data (0 where the map is in the records).

    Raises:
        SparseError: the map is damaged.
    """
    said = dict(records)
    try:
        size = int(said.get("GNU.sparse.realsize") or said["GNU.sparse.size"])
        if said.get("GNU.sparse.major") == "1":
            numbers, map_bytes = _map_in_data(read_block)
            return size, _check_pieces(numbers, size), map_bytes
        if "GNU.sparse.map" in said:
            flat = [int(each) for each in said["GNU.sparse.map"].split(",") if each]
        else:
            wanted = ("GNU.sparse.offset", "GNU.sparse.numbytes")
            flat = [int(value) for key, value in records if key in wanted]
    except SparseError:
        raise
    except (KeyError, ValueError) as exc:
        raise SparseError(f"its map of pieces cannot be read: {exc}") from None
    return size, _check_pieces(list(zip(flat[::2], flat[1::2], strict=False)), size), 0


def _map_in_data(read_block: Callable[[], bytes]) -> tuple[list[tuple[int, int]], int]:
    text, blocks = b"", 0
    needed = 1
    while text.count(b"\n") < needed:
        block = read_block()
        if len(block) < BLOCK:
            raise SparseError("its map of pieces does not end")
        text, blocks = text + block, blocks + 1
        first, end, _ = text.partition(b"\n")
        if not end or int(first) > _MOST_SEGMENTS:
            raise SparseError("its map of pieces does not begin with their number")
        needed = 1 + 2 * int(first)
    numbers = [int(line) for line in text.split(b"\n")[1:needed]]
    return list(zip(numbers[::2], numbers[1::2], strict=True)), blocks * BLOCK


def _check_pieces(pieces: list[tuple[int, int]], size: int) -> Segments:
    end = 0
    for offset, length in pieces:
        if offset < end or length < 0 or offset + length > size:
            raise SparseError(f"its map has a piece of {length} bytes at {offset} in a file of {size} bytes")
        end = offset + length
    return tuple(pieces)
