"""Whether the rows of a run are those of its plan: no pair missing, in no task, and none in another's place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from smoothcert.catalogue.formats import FORMATS
from smoothcert.datasets import UnitSpec
from smoothcert.datasets.records import pair_id
from smoothcert.sql import Query
from smoothcert.sql.literals import quote
from smoothcert.store import Committed, RunDirectory
from smoothcert.store.asked import asked_tasks


@dataclass(frozen=True, slots=True)
class Misplaced:
    """A unit whose rows are not its pairs.

    Attributes:
        unit_id: the unit.
        missing: pairs without a row.
        foreign: rows that are not of its pairs.
        detail: what was seen.
    """

    unit_id: str
    missing: int
    foreign: int
    detail: str


@dataclass(frozen=True, slots=True)
class _Planned:
    """What a unit should show: so many pairs of one file, numbered within these rows where ids are row numbers."""

    pairs: int
    name: str
    start: int
    stop: int

    def holds(self, first: int, last: int) -> bool:
        """Whether rows with these smallest and largest numbers are the unit's."""
        return self.start <= first and last < self.stop


def misplaced_rows(run: RunDirectory, query: Query) -> list[Misplaced]:
    """Units of certification that show other rows than their pairs', those without a commit included.

    A pair's id begins with the name of its file; where ids are row numbers, the number tells its unit as well. Of ids
    that the data name, that a row is of the right pair of the right file cannot be told.

    Raises:
        StoreError: reading failed.
    """
    planned = dict(_planned(run, run.commits.load()))
    data = run.info.job.data
    numbered = FORMATS[data.format].numbered and data.columns.id is None
    found: list[Misplaced] = []
    seen: dict[str, list[tuple[str, int, int, int, int]]] = {}
    rows = query.sql(
        "SELECT unit_id, split_part(pair_id, '#', 1) AS name, count(*) AS rows, count(DISTINCT pair_id) AS pairs, "
        "count(number) AS numbers, min(number) AS first, max(number) AS last FROM (SELECT unit_id, pair_id, "
        "try_cast(split_part(pair_id, '#', 2) AS BIGINT) AS number FROM certificates "
        f"WHERE run_id = {quote(run.run_id)}) GROUP BY ALL"
    )
    columns = (rows[name].to_pylist() for name in ("unit_id", "name", "pairs", "numbers", "first", "last"))
    for unit_id, *group in zip(*columns, strict=True):
        seen.setdefault(unit_id, []).append(tuple(group))
    for unit_id in [*planned, *(each for each in seen if each not in planned)]:
        unit = planned.get(unit_id)
        right = foreign = 0
        for name, pairs, numbers, first, last in seen.get(unit_id, ()):
            own = 0 if unit is None or name != unit.name else pairs
            if unit is not None and own and numbered and not (numbers == pairs and unit.holds(first, last)):
                own = _inside(query, run.run_id, unit_id, unit)
            right, foreign = right + own, foreign + pairs - own
        if unit is None:
            found.append(
                Misplaced(unit_id, 0, foreign, f"{foreign:,} rows belong to a unit that is in no plan")
            )
        elif right != unit.pairs or foreign:
            text = (
                f"{right:,} of {unit.pairs:,} pairs have rows"
                + f", {foreign:,} rows are of others" * bool(foreign)
            )
            if unit_id not in seen:
                text = "unit without a commit"
            found.append(
                Misplaced(unit_id, max(0, unit.pairs - right), foreign + max(0, right - unit.pairs), text)
            )
    return found


def unfinished_tasks(run: RunDirectory) -> Iterator[tuple[str, int]]:
    """Tasks that the run was asked for and that lack units, by name, with the number of pairs in these.

    Attacks are left out: what is missing of one is counted by subject and budget (audit/attacks.py).

    Raises:
        StoreError: reading failed.
    """
    committed = run.commits.load()
    for task in asked_tasks(run):
        missing = sum(len(unit) for unit in run.pending(committed, task.task_id))
        if missing and "attack" not in task.section:
            yield task.name, missing


def _inside(query: Query, run_id: str, unit_id: str, unit: _Planned) -> int:
    """Pairs whose ids are those of the unit's rows."""
    rows = query.sql(
        f"SELECT count(DISTINCT pair_id) AS pairs FROM certificates WHERE run_id = {quote(run_id)} AND unit_id = "
        f"{quote(unit_id)} AND split_part(pair_id, '#', 1) = {quote(unit.name)} AND "
        f"try_cast(split_part(pair_id, '#', 2) AS BIGINT) BETWEEN {unit.start} AND {unit.stop - 1}"
    )
    return int(rows["pairs"][0].as_py())


def _planned(run: RunDirectory, committed: Committed) -> Iterator[tuple[str, _Planned]]:
    """Units that should show rows: planned ones, parts of split ones, and retries, less what was replaced."""
    units: dict[str, UnitSpec] = {}
    waiting = list(run.plan())
    while waiting:
        unit = waiting.pop()
        if unit.unit_id in committed.split_units:
            waiting.extend(committed.split_units[unit.unit_id])
        else:
            units[unit.unit_id] = unit
    certification = committed.certification
    hidden: dict[str, int] = {}
    for unit_id in certification.hidden["unit_id"].to_pylist():
        hidden[unit_id] = hidden.get(unit_id, 0) + 1
    rows = dict(zip(certification.table["unit_id"].to_pylist(), _rows(certification), strict=True))
    for unit_id in [*units, *certification.replaced]:
        origin = unit_id
        while origin in certification.replaced:
            origin = certification.replaced[origin][0]
        if origin not in units:
            continue
        unit = units[origin]
        pairs = len(unit) if unit_id in units else rows[unit_id]
        yield unit_id, _Planned(pairs - hidden.get(unit_id, 0), _escaped(unit), unit.start, unit.stop)


def _escaped(unit: UnitSpec) -> str:
    """The name of the unit's file as it stands in every pair_id."""
    return pair_id(unit.name, "").removesuffix("#")


def _rows(certification: Committed) -> list[int]:
    columns = (certification.table[name].to_pylist() for name in ("ok", "quarantined"))
    return [ok + quarantined for ok, quarantined in zip(*columns, strict=True)]
