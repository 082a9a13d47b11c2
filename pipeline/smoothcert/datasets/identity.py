"""Cheap content identity of files: the same for a copy, different for nearly every change."""

from __future__ import annotations

import hashlib
import os
from typing import BinaryIO

WHOLE_BYTES = 4 * 1024 * 1024
SAMPLE_BYTES = 64 * 1024
MOST_FOOTER_BYTES = 64 * 1024 * 1024


def whole_digest(stream: BinaryIO) -> str:
    """Hex digest of every byte of a file."""
    total = hashlib.sha256()
    stream.seek(0)
    while chunk := stream.read(1 << 20):
        total.update(chunk)
    return total.hexdigest()


def sampled_digest(stream: BinaryIO, *, tail_bytes: int = 0) -> str:
    """Hex digest of a file's size and content: all of it up to 4 MiB, else its first and last 64 KiB.

    Modification times and entity tags are left out on purpose: a copied dataset is the same data. Not covered:
    a change in the middle of a large file that keeps the size and both ends.

    Args:
        stream: the file.
        tail_bytes: how much of the end to cover at least, e.g. a Parquet footer.
    """
    size = stream.seek(0, os.SEEK_END)
    if size <= WHOLE_BYTES:
        return whole_digest(stream)
    total = hashlib.sha256(f"{size}".encode())
    tail = min(max(tail_bytes, SAMPLE_BYTES), MOST_FOOTER_BYTES)
    stream.seek(0)
    total.update(stream.read(SAMPLE_BYTES))
    stream.seek(max(size - tail, 0))
    total.update(stream.read(tail))
    return total.hexdigest()
