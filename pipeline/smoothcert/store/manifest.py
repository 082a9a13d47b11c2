"""Many commits as one Arrow table, and what readers ask of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from smoothcert.datasets import UnitSpec
from smoothcert.store.commit_record import Commit
from smoothcert.store.parts import PartFile
from smoothcert.store.plan import unit_from_mapping, unit_to_mapping

_PART = pa.struct(
    [
        pa.field("table", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
    ]
)

MANIFEST = pa.schema(
    [
        pa.field("unit_id", pa.string(), nullable=False),
        pa.field("attempt", pa.string(), nullable=False),
        pa.field("parts", pa.list_(pa.field("element", _PART, nullable=False)), nullable=False),
        pa.field("ok", pa.int64(), nullable=False),
        pa.field("quarantined", pa.int64(), nullable=False),
        pa.field("draws", pa.int64(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("worker", pa.string(), nullable=False),
        pa.field("committed_at", pa.float64(), nullable=False),
        # rare, so kept as the JSON text that the commit has; empty in nearly every row
        pa.field("supersedes", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)
"""One row per commit. A part's ``rows`` are the unit's own, also where several units share a file."""


def table_from_commits(commits: Iterable[Commit]) -> pa.Table:
    """Commits as a table of the manifest's schema."""
    rows = [
        {
            "unit_id": c.unit_id,
            "attempt": c.attempt,
            "parts": [
                {"table": p.table, "file": p.file, "rows": p.rows, "size_bytes": p.size_bytes}
                for p in c.parts
            ],
            "ok": c.ok,
            "quarantined": c.quarantined,
            "draws": c.draws,
            "seconds": c.seconds,
            "worker": c.worker,
            "committed_at": c.committed_at,
            "supersedes": json.dumps({unit: list(pairs) for unit, pairs in c.supersedes.items()})
            if c.supersedes
            else "",
            "split": json.dumps([unit_to_mapping(unit) for unit in c.split]) if c.split else "",
        }
        for c in commits
    ]
    return pa.Table.from_pylist(rows, schema=MANIFEST)


@dataclass(frozen=True)
class Committed:
    """All commits of a run directory at one moment.

    Attributes:
        table: one row per closed unit, of schema ``MANIFEST``.
        manifest: number of the manifest that most of them came from; 0 for none.
        unfolded: how many it did not have.
        reopened: units that it has, but whose commit was deleted since, by hand: they are to be done again and
            are not in ``table``.
    """

    table: pa.Table
    manifest: int = 0
    unfolded: int = 0
    reopened: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def unit_ids(self) -> frozenset[str]:
        """Units that are closed: committed or split."""
        return frozenset(self.table["unit_id"].to_pylist())

    @cached_property
    def split_units(self) -> dict[str, tuple[UnitSpec, ...]]:
        """The units that took the place of split ones, by the split unit."""
        split = self.table.filter(pc.not_equal(self.table["split"], ""))
        return {
            unit_id: tuple(unit_from_mapping(unit) for unit in json.loads(text))
            for unit_id, text in zip(split["unit_id"].to_pylist(), split["split"].to_pylist(), strict=True)
        }

    @cached_property
    def replaced(self) -> dict[str, tuple[str, ...]]:
        """The units whose rows a unit of retries replaces, by the unit of retries."""
        superseding = self.table.filter(pc.not_equal(self.table["supersedes"], ""))
        columns = (superseding[name].to_pylist() for name in ("unit_id", "supersedes"))
        return {unit_id: tuple(json.loads(text)) for unit_id, text in zip(*columns, strict=True)}

    @cached_property
    def certification(self) -> Committed:
        """Without the commits of attacks: their units have a dot in the id (``runtime/attack_units.py``)."""
        attack = pc.match_substring(self.table["unit_id"], ".")
        return Committed(self.table.filter(pc.invert(attack)), self.manifest, self.unfolded)

    @cached_property
    def hidden(self) -> pa.Table:
        """Rows that a later commit replaced, as (unit_id, pair_id).

        Of two commits that replace the same row the earlier counts (by time, then by name), and the row of
        the other is hidden: a pair never shows twice.
        """
        superseding = self.table.filter(pc.not_equal(self.table["supersedes"], ""))
        columns = [superseding[name].to_pylist() for name in ("committed_at", "unit_id", "supersedes")]
        hidden: set[tuple[str, str]] = set()
        for _, unit_id, text in sorted(zip(*columns, strict=True)):
            for replaced, pairs in json.loads(text).items():
                for pair in pairs:
                    row = (replaced, pair)
                    hidden.add((unit_id, pair) if row in hidden else row)
        ordered = sorted(hidden)
        return pa.table(
            {
                "unit_id": pa.array([unit for unit, _ in ordered], pa.string()),
                "pair_id": pa.array([pair for _, pair in ordered], pa.string()),
            }
        )

    @property
    def pairs(self) -> int:
        """Pairs that have a row: each counted once, whatever was retried."""
        return self._sum("ok") + self._sum("quarantined") - int(self.certification.hidden.num_rows)

    @property
    def quarantined(self) -> int:
        """Pairs whose row claims nothing: only such rows are ever replaced (``smoothcert retry``)."""
        return max(0, self._sum("quarantined") - int(self.certification.hidden.num_rows))

    @property
    def planned_units(self) -> int:
        """Units of the plan that have rows; neither those that were split nor units of retries."""
        retries = pc.not_equal(self.table["supersedes"], "")
        return len(self) - len(self.split_units) - int(pc.sum(retries).as_py() or 0)

    @property
    def draws(self) -> int:
        """Draws spent on all committed attempts."""
        return self._sum("draws")

    def _sum(self, column: str) -> int:
        return int(pc.sum(self.table[column]).as_py() or 0)

    def files(self, table: str) -> list[str]:
        """Files that hold the committed rows of a table, each once, sorted."""
        return sorted({part.file for part in self.parts(table)})

    def parts(self, table: str) -> list[PartFile]:
        """Committed parts of a table; several units may share a file after compaction."""
        flat = pc.list_flatten(self.table["parts"]).combine_chunks()
        if len(flat) == 0:
            return []
        flat = flat.filter(pc.equal(pc.struct_field(flat, "table"), table))
        columns = [
            pc.struct_field(flat, name).to_pylist() for name in ("table", "file", "rows", "size_bytes")
        ]
        return [PartFile(*fields) for fields in zip(*columns, strict=True)]
