"""What rows of every table about pairs begin with: where a row comes from, and whether it says anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from smoothcert.datasets import Pair
from smoothcert.errors import PairError


@dataclass(frozen=True, kw_only=True)
class PairRow:
    """The columns of ``store/tables/shared_columns.py`` that a worker knows.

    Attributes:
        unit_id: empty until the row is that of a unit.
        pair_id: the pair.
        source_uri: its file.
        status: ``ok`` or ``quarantined``.
        error_stage: where a quarantined pair failed.
        error_class: the kind of error.
        error_message: in words.
    """

    unit_id: str = ""
    pair_id: str
    source_uri: str
    status: str = "ok"
    error_stage: str | None = None
    error_class: str | None = None
    error_message: str | None = None


Row = TypeVar("Row", bound=PairRow)


def pair_fields(pair: Pair) -> dict[str, Any]:
    """The fields of a ``PairRow`` that are the pair's."""
    return {"pair_id": pair.pair_id, "source_uri": pair.source_uri}


def failure_fields(pair: Pair, error: PairError) -> dict[str, Any]:
    """The fields of a ``PairRow`` of a pair that failed."""
    return pair_fields(pair) | {
        "status": "quarantined",
        "error_stage": error.stage,
        "error_class": type(error).__name__,
        "error_message": str(error),
    }


def of_unit(rows: Sequence[Row], unit_id: str) -> list[Row]:
    """The rows, as those of a unit."""
    return [replace(row, unit_id=unit_id) for row in rows]
