"""Which pairs are done again, and in which units: quarantined ones that the user chose, and those whose rows are stale.

What replaces rows replaces all that a unit has of a pair (of an attack one for each subject and budget), so a pair is
always done again as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

from smoothcert.datasets import UnitSpec
from smoothcert.errors import QueryError, RunDirectoryError
from smoothcert.sql import Query
from smoothcert.store import Committed, RunDirectory, TableSchema
from smoothcert.store.retry_unit import RetryUnit, retry_unit
from smoothcert.store.units import task_of, unit_under

if TYPE_CHECKING:
    from smoothcert.work.task import Task

Chosen: TypeAlias = dict[str, tuple[str, ...]]
"""Pairs, sorted, by the unit whose rows show them now."""


def choose(run: RunDirectory, table: TableSchema, where: str, *, option: str) -> Chosen:
    """Pairs that have a quarantined row of a table of which an SQL condition is true.

    Args:
        run: the run directory.
        table: the table.
        where: a condition on its columns, e.g. ``error_class = 'DecodeError'``.
        option: what the user calls it.

    Raises:
        QueryError: the condition is empty or not valid SQL.
        StoreError: reading failed.
    """
    if not where.strip():
        raise QueryError(
            f"{option} is empty", remedy=f"e.g. {option} \"error_class = 'DecodeError'\", or {option} true"
        )
    # nested, so that no condition reaches beyond these rows; the newline ends a comment in it
    quarantined = f"(SELECT * FROM {table.name} WHERE status = 'quarantined')"
    with Query([run]) as query:
        return _pairs_by_unit(query, f"{quarantined} WHERE ({where}\n)")


def stale_pairs(run: RunDirectory, committed: Committed, table: TableSchema, rests_on: TableSchema) -> Chosen:
    """Pairs of a table that were retried in another one after their rows here were made from it.

    Without retries nothing is read.

    Raises:
        StoreError: reading failed.
    """
    replacing = committed.replacing(rests_on.name)
    if not replacing:
        return {}
    units = ", ".join(f"'{unit}'" for unit in replacing)
    retried_sql = f"{rests_on.name} WHERE status = 'ok' AND unit_id IN ({units})"
    with Query([run]) as query:
        retried = query.sql(f"SELECT pair_id, unit_id FROM {retried_sql}")
        here = _pairs_by_unit(query, f"{table.name} WHERE pair_id IN (SELECT pair_id FROM {retried_sql})")
    by = dict(zip(retried["pair_id"].to_pylist(), retried["unit_id"].to_pylist(), strict=True))
    columns = (committed.table[name].to_pylist() for name in ("unit_id", "committed_at"))
    when: dict[str, float] = dict(zip(*columns, strict=True))
    stale = {
        unit: tuple(pair for pair in pairs if when.get(by[pair], 0.0) > when.get(unit, 0.0))
        for unit, pairs in here.items()
    }
    return {unit: pairs for unit, pairs in stale.items() if pairs}


def of_tasks(chosen: Mapping[str, tuple[str, ...]], task_ids: Collection[str]) -> Chosen:
    """What belongs to these tasks."""
    return {unit: pairs for unit, pairs in chosen.items() if task_of(unit) in task_ids}


def merge(one: Mapping[str, tuple[str, ...]], other: Mapping[str, tuple[str, ...]]) -> Chosen:
    """The pairs of either, each once."""
    return {
        unit: tuple(sorted({*one.get(unit, ()), *other.get(unit, ())})) for unit in sorted({*one, *other})
    }


def retry_units(
    run: RunDirectory, chosen: Mapping[str, tuple[str, ...]], committed: Committed
) -> Iterator[RetryUnit]:
    """One unit for the chosen pairs of each earlier unit, of any task, less the pairs that were replaced already.

    Raises:
        RunDirectoryError: an earlier unit is in no plan.
    """
    if not chosen:
        return
    places = _places(run, committed, {task_of(origin) for origin in chosen})
    units = []
    for origin, pairs in chosen.items():
        planned = origin
        while planned in committed.replaced:  # through any number of retries
            (planned,) = committed.replaced[planned]
        if planned not in places:
            raise RunDirectoryError(
                f"'{run.url}' has rows of unit '{origin}', which is in no plan",
                remedy="restore the run directory: plan/ and commits/ belong together",
            )
        units.append(retry_unit(places[planned], origin, pairs))
    yield from _not_replaced(units, committed)


def pending(
    run: RunDirectory, tasks: Collection[Task], committed: Committed, again: Mapping[str, tuple[str, ...]]
) -> Iterator[UnitSpec]:
    """What is left of some tasks: units without a commit, task after task, then stale and chosen pairs.

    Args:
        run: the run directory.
        tasks: the tasks.
        committed: its commits.
        again: chosen pairs; those of other tasks are left out.
    """
    # retries first: while open units are worked on, rows change, and what is stale would be read from two states
    retries = _retries(run, tasks, committed, again)
    for task in tasks:
        yield from run.pending(committed, task.task_id)
    yield from retries


def _retries(
    run: RunDirectory, tasks: Collection[Task], committed: Committed, again: Mapping[str, tuple[str, ...]]
) -> list[RetryUnit]:
    stale: Chosen = {}
    for task in {task.table.name: task for task in tasks if task.rests_on is not None}.values():
        assert task.rests_on is not None
        stale = merge(stale, stale_pairs(run, committed, task.table, task.rests_on))
    mine = of_tasks(merge(stale, again), {task.task_id for task in tasks})
    return list(retry_units(run, mine, committed))


def _pairs_by_unit(query: Query, rows: str) -> Chosen:
    found = query.sql(f"SELECT DISTINCT unit_id, pair_id FROM {rows}")
    chosen: dict[str, list[str]] = {}
    for unit, pair in zip(found["unit_id"].to_pylist(), found["pair_id"].to_pylist(), strict=True):
        chosen.setdefault(unit, []).append(pair)
    return {unit: tuple(sorted(pairs)) for unit, pairs in sorted(chosen.items())}


def _not_replaced(units: Iterable[RetryUnit], committed: Committed) -> Iterator[RetryUnit]:
    hidden = committed.hidden
    replaced = set(zip(hidden["unit_id"].to_pylist(), hidden["pair_id"].to_pylist(), strict=True))
    for unit in units:
        pairs = tuple(pair for pair in unit.pairs if (unit.origin, pair) not in replaced)
        if pairs:
            yield retry_unit(unit, unit.origin, pairs)


def _places(run: RunDirectory, committed: Committed, task_ids: set[str]) -> dict[str, UnitSpec]:
    """Every unit of the plan under these tasks, and every part of a split one."""
    planned = run.plan()
    places = {
        unit.unit_id: unit for task_id in task_ids for unit in (unit_under(each, task_id) for each in planned)
    }
    for parts in committed.split_units.values():
        places |= {part.unit_id: part for part in parts}
    return places
