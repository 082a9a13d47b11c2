"""What the input holds beside pairs: counted and named, so that nothing goes missing in silence."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

MOST_EXAMPLES = 8
NAMED = "images, each read where a manifest names it"
"""A reason that is none to worry: such files are no pairs by themselves."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Things of the input that no pair uses, all for one reason.

    Attributes:
        kind: ``file``, ``folder``, ``member`` (of an archive) or ``line``.
        reason: why, e.g. ``'.npy' is not an image, caption or label``.
        count: how many.
        examples: names of the first few; a member is named ``<archive>#<member>``, a line ``<file>#byte <offset>``.
    """

    kind: str
    reason: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.examples) else ""
        plural = self.kind if self.count == 1 else f"{self.kind}s"
        return f"{self.count:,} {plural}: {self.reason} ({', '.join(self.examples)}{more})"


class LeftOuts:
    """Collects what is left out, from any thread; holds a few names for each reason, however many there are."""

    def __init__(self, entries: Iterable[LeftOut] = ()) -> None:
        self._found: dict[tuple[str, str], LeftOut] = {}
        self._lock = threading.Lock()
        for entry in entries:
            self._merge(entry)

    def add(self, kind: str, name: str, reason: str) -> None:
        """Note one thing."""
        self._merge(LeftOut(kind, reason, 1, (name,)))

    def update(self, entries: Iterable[LeftOut]) -> None:
        """Note what was collected elsewhere."""
        for entry in entries:
            self._merge(entry)

    def __iter__(self) -> Iterator[LeftOut]:
        """By kind and reason."""
        return iter([self._found[key] for key in sorted(self._found)])

    def _merge(self, entry: LeftOut) -> None:
        key = (entry.kind, entry.reason)
        with self._lock:
            before = self._found.get(key)
            if before is not None:
                names = (*before.examples, *entry.examples)[:MOST_EXAMPLES]
                entry = replace(before, count=before.count + entry.count, examples=names)
            self._found[key] = entry
