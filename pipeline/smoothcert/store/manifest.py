"""Many commits as one Arrow table, and what readers ask of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from smoothcert.datasets import UnitSpec
from smoothcert.store.commit_record import Commit
from smoothcert.store.parts import PartFile
from smoothcert.store.plan import unit_from_mapping, unit_to_mapping
from smoothcert.store.units import CERTIFICATION, task_of

_ManifestRow: TypeAlias = tuple[str, str]
"""Unit and pair."""

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
        pa.field("task", pa.string(), nullable=False),
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
            "task": c.task,
        }
        for c in commits
    ]
    return pa.Table.from_pylist(rows, schema=MANIFEST)


def with_tasks(table: pa.Table) -> pa.Table:
    """A manifest as it was read, with the tasks that manifests before version 0.2 leave to the units' ids."""
    if "task" in table.column_names:
        return table.select(MANIFEST.names).cast(MANIFEST)
    tasks = pa.array([task_of(unit) for unit in table["unit_id"].to_pylist()], pa.string())
    return table.append_column("task", tasks).select(MANIFEST.names).cast(MANIFEST)


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

    def of(self, task_id: str) -> Committed:
        """The commits of one task."""
        own = self.table.filter(pc.equal(self.table["task"], task_id))
        return Committed(own, self.manifest, self.unfolded)

    @cached_property
    def certification(self) -> Committed:
        """The commits of certification."""
        return self.of(CERTIFICATION)

    def replacing(self, table: str) -> list[str]:
        """Units of retries that have rows of a table, sorted."""
        superseding = self.table.filter(pc.not_equal(self.table["supersedes"], ""))
        columns = (superseding[name].to_pylist() for name in ("unit_id", "parts"))
        return sorted(
            unit_id
            for unit_id, parts in zip(*columns, strict=True)
            if any(part["table"] == table for part in parts)
        )

    @cached_property
    def hidden(self) -> pa.Table:
        """Rows that a later commit replaced, as (unit_id, pair_id).

        Of several commits that replace the same row one counts, and the rows of the others, and whatever replaced
        those, are hidden: a pair never shows twice. It is the one at the head of the longest chain, since only a
        row that shows is tried again; then the earliest by the workers' clocks, then by name.
        """
        ordered = sorted(self._hidden)
        return pa.table(
            {
                "unit_id": pa.array([unit for unit, _ in ordered], pa.string()),
                "pair_id": pa.array([pair for _, pair in ordered], pa.string()),
            }
        )

    @cached_property
    def _replacing(self) -> dict[_ManifestRow, list[_ManifestRow]]:
        """The rows that would replace each row, the earliest first."""
        superseding = self.table.filter(pc.not_equal(self.table["supersedes"], ""))
        columns = [superseding[name].to_pylist() for name in ("committed_at", "unit_id", "supersedes")]
        replacing: dict[_ManifestRow, list[_ManifestRow]] = {}
        for _, unit_id, text in sorted(zip(*columns, strict=True)):
            for replaced, pairs in json.loads(text).items():
                for pair in pairs:
                    replacing.setdefault((replaced, pair), []).append((unit_id, pair))
        return replacing

    @cached_property
    def _hidden(self) -> set[_ManifestRow]:
        replacing = self._replacing

        def below(row: _ManifestRow) -> list[list[_ManifestRow]]:
            """The rows that replace a row, that replace those, and so on."""
            levels = [replacing.get(row, [])]
            while levels[-1]:
                levels.append([each for above in levels[-1] for each in replacing.get(above, ())])
            return levels

        replacements = {row for rows in replacing.values() for row in rows}
        hidden: set[_ManifestRow] = set()
        for first in replacing.keys() - replacements:
            row = first
            while rivals := replacing.get(row):
                chosen = max(rivals, key=lambda rival: len(below(rival)))  # the earliest of equals
                hidden.add(row)
                for rival in rivals:
                    if rival != chosen:
                        hidden.update([rival], *below(rival))
                row = chosen
        return hidden

    @property
    def pairs(self) -> int:
        """Of certification: pairs that have a row, each counted once, whatever was retried."""
        own = self.certification
        return own._sum("ok") + own._sum("quarantined") - int(own.hidden.num_rows)

    @property
    def quarantined(self) -> int:
        """Of certification: pairs whose row claims nothing.

        Only such rows are replaced (``smoothcert retry``), but one that lost against another replacement may be ok,
        and a commit does not say which of its rows are. It is taken for ok while its unit has such rows: where
        retries overlap this may be too many by some of these, and never too few.
        """
        own = self.certification
        facts = (own.table[name].to_pylist() for name in ("unit_id", "ok", "quarantined"))
        counts = {unit_id: (ok, quarantined) for unit_id, ok, quarantined in zip(*facts, strict=True)}
        replaced = Counter(unit for unit, pair in own._hidden if (unit, pair) in own._replacing)
        lost = Counter(unit for unit, pair in own._hidden if (unit, pair) not in own._replacing)
        gone = 0
        for unit in replaced.keys() | lost.keys():
            ok, quarantined = counts.get(unit, (0, 0))
            gone += min(quarantined, replaced[unit] + max(0, lost[unit] - ok))
        return own._sum("quarantined") - gone

    @property
    def planned_units(self) -> int:
        """Of one task: units of the plan that have rows; neither those that were split nor units of retries."""
        retries = pc.not_equal(self.table["supersedes"], "")
        return len(self) - len(self.split_units) - int(pc.sum(retries).as_py() or 0)

    @property
    def draws(self) -> int:
        """Of certification: draws spent on all committed attempts, pilot draws included."""
        return self.certification._sum("draws")

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
