"""The data's own columns that a job carries into its rows (``data.keep``), from whatever value a file holds."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import date, datetime, time

from smoothcert.datasets.captions import text_from
from smoothcert.errors import ReadError
from smoothcert.job import DataSection

_INTEGER = re.compile(r"[+-]?[0-9]+")
_BOOLEANS = {"true": "true", "false": "false", "1": "true", "0": "false"}


def kept_values(data: DataSection, value_of: Callable[[str], object]) -> tuple[str | None, ...]:
    """One text for each column of ``data.keep``, in its order; None where the data has nothing.

    Numbers and truth values are written so that SQL reads them as what the job declares.

    Args:
        data: the job's data section.
        value_of: gives the row's value of a column.

    Raises:
        ReadError: a value is not of the type that the job declares.
    """
    return tuple(_kept(value_of(name), name, kind) for name, kind in data.kept.items())


def _kept(value: object, name: str, kind: str) -> str | None:
    where = f"column '{name}' (data.keep)"
    if isinstance(value, (bytes, str)):
        value = text_from(value, where, ReadError)
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    text = _text(value)
    found = _WRITTEN[kind](text) if kind != "text" else text
    if found is None:
        raise ReadError(
            f"{where} is {text!r:.40}, not of type {kind}", remedy="correct it, or declare it as text"
        )
    return found


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _integer(text: str) -> str | None:
    whole = text.removesuffix(".0")
    inside = _INTEGER.fullmatch(whole) is not None and -(2**63) <= int(whole) < 2**63
    return str(int(whole)) if inside else None


def _number(text: str) -> str | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return repr(value) if math.isfinite(value) else None


def _boolean(text: str) -> str | None:
    return _BOOLEANS.get(text.casefold())


_WRITTEN: dict[str, Callable[[str], str | None]] = {
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
}
