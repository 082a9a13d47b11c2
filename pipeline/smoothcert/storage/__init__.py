"""Bytes on any URL: file systems, reads that are tried again, and foreign exceptions in our words."""

from smoothcert.storage.filesystem import Entry, Storage, join
from smoothcert.storage.foreign_errors import translate
from smoothcert.storage.steady import SteadyFile, info_of, is_transient, read_whole, steadily

__all__ = [
    "Entry",
    "SteadyFile",
    "Storage",
    "info_of",
    "is_transient",
    "join",
    "read_whole",
    "steadily",
    "translate",
]
