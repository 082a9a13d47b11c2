"""Names of a package that are resolved on first use, so that importing it does not import what they stand on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module


def resolve_late(
    package: str, homes: Mapping[str, str], shown: list[str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: its ``__name__``.
        homes: of each such name the module, relative to the package, that defines it.
        shown: what ``dir`` lists.
    """

    def resolve(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return resolve, lambda: shown
