"""Bytes on any URL: file systems, reads that are tried again, and foreign exceptions in our words."""

from importlib import import_module
from typing import TYPE_CHECKING

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


def __getattr__(name: str) -> object:
    # readers of data take ``steady`` from here, and should not wait for Arrow
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
