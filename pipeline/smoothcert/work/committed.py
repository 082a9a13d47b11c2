"""Committed rows of one table that another task rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from smoothcert.store import RunDirectory, TableSchema
from smoothcert.store.units import plan_number


class CommittedRows:
    """Finds the ok rows of the pairs of a unit among the run's committed files.

    Args:
        run: the run directory, as of now.
        table: whose rows.
        columns: to read; ``unit_id``, ``pair_id`` and ``status`` among them.
    """

    def __init__(self, run: RunDirectory, table: TableSchema, columns: Sequence[str]) -> None:
        self._storage, self._columns = run.storage, list(columns)
        committed = run.commits.load()
        commits = (committed.table[name].to_pylist() for name in ("unit_id", "parts"))
        self._replaced = committed.replaced
        self._files: dict[str, set[str]] = {}
        for unit_id, parts in zip(*commits, strict=True):
            files = [part["file"] for part in parts if part["table"] == table.name]
            for number in _numbers(unit_id, self._replaced) if files else ():
                self._files.setdefault(number, set()).update(files)
        hidden = committed.hidden
        self._hidden = set(zip(hidden["unit_id"].to_pylist(), hidden["pair_id"].to_pylist(), strict=True))

    def of(self, unit_id: str, pair_ids: Sequence[str]) -> list[dict[str, Any]]:
        """The rows of these pairs.

        Args:
            unit_id: a unit of any task that holds them; of a unit of retries, the one that it replaces rows of.
            pair_ids: the pairs.

        Raises:
            StoreError: a committed file cannot be read.
        """
        found: list[dict[str, Any]] = []
        wanted = pa.array(list(pair_ids), pa.string())
        numbers = _numbers(unit_id, self._replaced)
        for file in sorted({file for number in numbers for file in self._files.get(number, ())}):
            with self._storage.open_input(file) as stream:
                table = pq.read_table(stream, columns=self._columns)
            found += [
                row
                for row in table.filter(pc.is_in(table["pair_id"], wanted)).to_pylist()
                if row["status"] == "ok" and (row["unit_id"], row["pair_id"]) not in self._hidden
            ]
        return found


def _numbers(unit_id: str, replaced: Mapping[str, tuple[str, ...]]) -> set[str]:
    """Numbers of the planned units that a unit's rows belong to; a retry stands for rows of others."""
    if unit_id not in replaced:
        return {plan_number(unit_id)}
    return {number for origin in replaced[unit_id] for number in _numbers(origin, replaced)}
