"""Which code made the numbers: the version, and a digest of the rooms that determine them."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from smoothcert.version import VERSION

COUNTED = (
    "answerers",
    "attacks",
    "catalogue",
    "certificates",
    "datasets",
    "defences",
    "encoders",
    "engine",
    "statistics",
    "work",
)
"""Rooms that a number in a row may depend on. A job stands in the fingerprint by its content."""


@cache
def code_version() -> str:
    """``<version>+<8 hex>``; changes with any source file that a number depends on, not with the command line."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for room in COUNTED:
        for file in sorted((root / room).rglob("*.py")):
            digest.update(f"{file.relative_to(root).as_posix()}\0".encode() + file.read_bytes())
    return f"{VERSION}+{digest.hexdigest()[:8]}"
