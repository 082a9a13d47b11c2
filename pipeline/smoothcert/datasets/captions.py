"""Captions and labels from whatever value a file holds for them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from smoothcert.errors import CaptionError


def captions_from(value: object, where: str) -> tuple[str, ...]:
    """The captions in a cell: a text or a list of texts, stripped of surrounding white space.

    Empty entries of a list are dropped.

    Args:
        value: str, UTF-8 bytes, a list of these, or None.
        where: what the value is called in messages, e.g. ``column 'caption'``.

    Raises:
        CaptionError: nothing is left, or an entry is not text or not valid UTF-8.
    """
    entries = value if isinstance(value, (list, tuple)) else [value]
    captions = tuple(text for entry in entries if (text := _text(entry, where)))
    if not captions:
        seen = "missing" if value is None else f"empty ({value!r:.40})"
        raise CaptionError(f"{where} is {seen}", remedy="give the pair a caption or leave it out")
    return captions


def label_from(value: object, where: str, class_names: Sequence[str] = ()) -> str | None:
    """The class name in a cell; integers are looked up in ``class_names`` when there are any.

    Returns:
        The name, or None where the cell is empty (null, NaN or blank).

    Raises:
        CaptionError: the label is not valid UTF-8, or its number has no name.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, (str, bytes)):
        return _text(value, where) or None
    if class_names and isinstance(value, int) and not isinstance(value, bool):
        if value == -1:  # how published sets mark a pair without a label
            return None
        if not 0 <= value < len(class_names):
            raise CaptionError(
                f"{where} is {value}, but the file names {len(class_names)} classes",
                remedy="correct the label",
            )
        return class_names[value]
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _text(entry: object, where: str) -> str:
    if entry is None:
        return ""
    if not isinstance(entry, (str, bytes)):
        raise CaptionError(
            f"{where} holds {type(entry).__name__} {entry!r:.40}, not text", remedy="store it as text"
        )
    try:
        # A str may hold lone surrogates (from JSON escapes, or from bytes kept as they were).
        raw = entry if isinstance(entry, bytes) else entry.encode("utf-8", "surrogateescape")
        return raw.decode("utf-8").strip()
    except UnicodeError as exc:
        raise not_utf8(where, exc) from None


def not_utf8(where: str, exc: UnicodeError) -> CaptionError:
    """The error for text that is not valid UTF-8."""
    at = f" (byte {exc.start})" if isinstance(exc, (UnicodeDecodeError, UnicodeEncodeError)) else ""
    return CaptionError(f"{where} is not valid UTF-8{at}", remedy="re-encode the text as UTF-8")
