"""Bytes on any URL: file systems, reads that are tried again, and foreign exceptions in our words."""

from typing import TYPE_CHECKING

from smoothcert.late_names import resolve_late

if TYPE_CHECKING:
    from smoothcert.storage.filesystem import Entry, Storage, join
    from smoothcert.storage.foreign_errors import translate

__all__ = ["Entry", "Storage", "join", "translate"]

_HOME = {
    "Entry": "filesystem",
    "Storage": "filesystem",
    "join": "filesystem",
    "translate": "foreign_errors",
}

# readers of data take ``steady`` from here, and should not wait for Arrow
__getattr__, __dir__ = resolve_late(__name__, _HOME, __all__)
