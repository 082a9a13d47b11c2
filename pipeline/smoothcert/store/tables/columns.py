"""A declared table: versioned columns with type, unit, meaning and source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a published table.

    Attributes:
        name: its name in files and in SQL.
        type: its Arrow type.
        meaning: what it says, for a reader who has never seen the code.
        nullable: whether NULL may occur; what NULL means is part of ``meaning``.
        unit: unit of its numbers, empty for none.
        source: where it comes from, e.g. ``theory T3``.
        infinite: whether plus or minus infinity may occur; NaN never may.
        values: the only values that may occur, where they can be listed.
    """

    name: str
    type: pa.DataType
    meaning: str
    nullable: bool = False
    unit: str = ""
    source: str = ""
    infinite: bool = False
    values: tuple[str, ...] = ()

    def described(self) -> dict[str, Any]:
        """What the published schema says about it."""
        facts: dict[str, Any] = {"name": self.name, "type": str(self.type), "nullable": self.nullable}
        if self.unit:
            facts["unit"] = self.unit
        facts["meaning"] = self.meaning
        if self.source:
            facts["source"] = self.source
        if self.values:
            facts["values"] = list(self.values)
        if self.infinite:
            facts["infinite"] = True
        return facts


@dataclass(frozen=True, slots=True)
class TableSchema:
    """One published table.

    Attributes:
        name: of the table, and of the directory that holds its parts.
        version: raised whenever a column changes its name, type or meaning, or goes; new nullable columns do
            not.
        meaning: what one row is.
        columns: in order.
        key: columns that tell the rows of a run apart; no part has two rows with the same.
    """

    name: str
    version: int
    meaning: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ("pair_id",)

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            raise ValueError(f"table '{self.name}' names a column twice")
        if not set(self.key) <= set(names):
            raise ValueError(
                f"table '{self.name}' has no columns {set(self.key) - set(names)}, which its key names"
            )

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema; file metadata names table and version."""
        return pa.schema(
            [pa.field(column.name, column.type, nullable=column.nullable) for column in self.columns],
            metadata={"smoothcert.table": self.name, "smoothcert.version": str(self.version)},
        )

    @property
    def file_name(self) -> str:
        """Name of its published description in ``schemas/``."""
        return f"{self.name}.v{self.version}.json"

    def described(self) -> dict[str, Any]:
        """What is published about it, as plain data."""
        return {
            "table": self.name,
            "version": self.version,
            "meaning": self.meaning,
            "columns": [column.described() for column in self.columns],
        }
