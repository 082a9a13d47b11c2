"""Captions from whatever value a file holds for them."""

from __future__ import annotations

from smoothcert.errors import CaptionError, PairError


def captions_from(value: object, where: str) -> tuple[str, ...]:
    """The captions in a cell: a text or a list of texts, stripped of surrounding white space and of a byte order mark.

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
        raise CaptionError(f"{where} is {seen}", remedy="add a caption or remove the pair")
    return captions


def text_from(value: str | bytes, where: str, error: type[PairError]) -> str:
    """The text without a byte order mark and without white space around it.

    Raises:
        PairError: of the given kind, where it is not valid UTF-8.
    """
    try:
        # A str may hold lone surrogates (from JSON escapes, or from bytes kept as they were).
        raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
        return raw.decode("utf-8").strip().removeprefix("\ufeff").strip()
    except UnicodeError as exc:
        raise not_utf8(where, exc, error) from None


def _text(entry: object, where: str) -> str:
    if entry is None:
        return ""
    if not isinstance(entry, (str, bytes)):
        raise CaptionError(
            f"{where} holds {type(entry).__name__} {entry!r:.40}, not text", remedy="store it as text"
        )
    return text_from(entry, where, CaptionError)


def not_utf8(where: str, exc: UnicodeError, error: type[PairError] = CaptionError) -> PairError:
    """The error for text that is not valid UTF-8."""
    at = f" (byte {exc.start})" if isinstance(exc, (UnicodeDecodeError, UnicodeEncodeError)) else ""
    return error(f"{where} is not valid UTF-8{at}", remedy="save the text as UTF-8")
