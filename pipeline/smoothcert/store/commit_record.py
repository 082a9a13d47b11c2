"""What a commit says: which attempt at a unit counts, and where its rows are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from smoothcert.datasets import UnitSpec
from smoothcert.errors import RunDirectoryError
from smoothcert.store.parts import PartFile
from smoothcert.store.plan import unit_from_mapping, unit_to_mapping
from smoothcert.store.units import CERTIFICATION, task_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The outcome of one unit, final once it is in the run directory.

    A commit either counts one attempt's rows (``parts``), or says that the unit was cut into smaller ones
    (``split``), which then count instead; both close the unit for every other attempt.

    Attributes:
        unit_id: the unit.
        attempt: the attempt that counts.
        parts: its verified parts, at most one per table.
        ok: rows with status ok. Commits of attacks before version 0.2 count no rows and no draws.
        quarantined: rows with status quarantined.
        draws: noisy forward passes spent on the attempt, pilot draws included.
        seconds: wall time of the attempt.
        worker: what did it, e.g. host and process.
        committed_at: seconds since 1970, by the worker's clock.
        supersedes: pairs of earlier units, by unit, whose rows this unit's rows replace (``smoothcert
            retry``, and what follows it).
        split: the units that take this one's place.
    """

    unit_id: str
    attempt: str
    parts: tuple[PartFile, ...] = ()
    ok: int = 0
    quarantined: int = 0
    draws: int = 0
    seconds: float = 0.0
    worker: str = ""
    committed_at: float = field(default_factory=lambda: datetime.now(UTC).timestamp())
    supersedes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    split: tuple[UnitSpec, ...] = ()

    def __post_init__(self) -> None:
        if self.split and (self.parts or self.rows or self.supersedes):
            raise ValueError(f"commit of unit '{self.unit_id}' both splits it and counts rows")
        if not self.split and not self.parts:
            raise ValueError(f"commit of unit '{self.unit_id}' names no part and no split")
        tables = [part.table for part in self.parts]
        if len(set(tables)) != len(tables):
            raise ValueError(f"commit of unit '{self.unit_id}' names two parts of one table")
        held = sum(part.rows for part in self.parts)
        if held != self.rows and (self.rows or self.task == CERTIFICATION):
            raise ValueError(
                f"commit of unit '{self.unit_id}' counts {self.rows} rows, its part holds {held}"
            )
        replaced = sum(len(pairs) for pairs in self.supersedes.values())
        # only a certificate is one row a pair
        if self.supersedes and self.task == CERTIFICATION and replaced != self.rows:
            raise ValueError(f"commit of unit '{self.unit_id}' replaces {replaced} rows by {self.rows}")

    @property
    def task(self) -> str:
        """What it is a unit of; empty for certification."""
        return task_of(self.unit_id)

    @property
    def rows(self) -> int:
        """Rows of the unit, ok and quarantined; of certification one a pair."""
        return self.ok + self.quarantined

    def to_json(self) -> bytes:
        """As the text of ``commits/<unit>.json``."""
        data = {
            "unit_id": self.unit_id,
            "attempt": self.attempt,
            "task": self.task,
            "parts": [
                {"table": p.table, "file": p.file, "rows": p.rows, "size_bytes": p.size_bytes}
                for p in self.parts
            ],
            "ok": self.ok,
            "quarantined": self.quarantined,
            "draws": self.draws,
            "seconds": self.seconds,
            "worker": self.worker,
            "committed_at": self.committed_at,
            "supersedes": {unit: list(pairs) for unit, pairs in self.supersedes.items()},
            "split": [unit_to_mapping(unit) for unit in self.split],
        }
        return json.dumps(data).encode()

    @classmethod
    def from_json(cls, text: bytes | str, origin: str) -> Commit:
        """Read a commit.

        Raises:
            RunDirectoryError: the text of ``origin`` is not a commit.
        """
        try:
            data: dict[str, Any] = json.loads(text)
            return cls(
                unit_id=data["unit_id"],
                attempt=data["attempt"],
                parts=tuple(PartFile(**part) for part in data["parts"]),
                ok=data["ok"],
                quarantined=data["quarantined"],
                draws=data["draws"],
                seconds=data["seconds"],
                worker=data["worker"],
                committed_at=data["committed_at"],
                supersedes={unit: tuple(pairs) for unit, pairs in data.get("supersedes", {}).items()},
                split=tuple(unit_from_mapping(unit) for unit in data.get("split", ())),
            )
        except (ValueError, KeyError, TypeError) as exc:
            raise RunDirectoryError(
                f"'{origin}' is damaged: {exc}",
                remedy="delete that file and run the same command again; only this unit is repeated",
            ) from exc
