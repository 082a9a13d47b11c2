"""Which quarantined pairs run again, and in which units."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

import pyarrow.compute as pc

from smoothcert.datasets import UnitSpec
from smoothcert.errors import QueryError, RunDirectoryError
from smoothcert.runtime.retry_unit import RetryUnit, retry_unit
from smoothcert.store import Committed, RunDirectory


def choose(run: RunDirectory, where: str) -> dict[str, tuple[str, ...]]:
    """Quarantined pairs that an SQL condition is true of, by the unit whose row shows them now.

    Args:
        run: the run directory.
        where: a condition on the columns of the view ``quarantine``, e.g. ``error_class = 'DecodeError'``.

    Raises:
        QueryError: the condition is not valid SQL.
    """
    if not where.strip():
        raise QueryError(
            "--where is empty", remedy="e.g. --where \"error_class = 'DecodeError'\", or --where true"
        )
    from smoothcert.store import Query

    with Query([run]) as query:
        # the newline ends a comment in the condition
        found = query.sql(f"SELECT DISTINCT unit_id, pair_id FROM quarantine WHERE ({where}\n)")
    chosen: dict[str, list[str]] = {}
    for unit, pair in zip(found["unit_id"].to_pylist(), found["pair_id"].to_pylist(), strict=True):
        chosen.setdefault(unit, []).append(pair)
    return {unit: tuple(sorted(pairs)) for unit, pairs in sorted(chosen.items())}


def retry_units(
    run: RunDirectory, chosen: Mapping[str, tuple[str, ...]], committed: Committed
) -> list[RetryUnit]:
    """One unit for the chosen pairs of each earlier unit.

    Raises:
        RunDirectoryError: an earlier unit is in no plan.
    """
    places = _places(run, committed)
    units = []
    for origin, pairs in chosen.items():
        planned = _planned(origin, committed)
        if planned not in places:
            raise RunDirectoryError(
                f"'{run.url}' has rows of unit '{origin}', which is in no plan",
                remedy="restore the run directory: plan/ and commits/ belong together",
            )
        units.append(retry_unit(places[planned], origin, pairs))
    return units


def left(units: Iterable[RetryUnit], committed: Committed) -> Iterator[RetryUnit]:
    """What of these units is not replaced yet."""
    hidden = committed.hidden
    replaced = set(zip(hidden["unit_id"].to_pylist(), hidden["pair_id"].to_pylist(), strict=True))
    for unit in units:
        pairs = tuple(pair for pair in unit.pairs if (unit.origin, pair) not in replaced)
        if pairs:
            yield retry_unit(unit, unit.origin, pairs)


def _places(run: RunDirectory, committed: Committed) -> dict[str, UnitSpec]:
    places = {unit.unit_id: unit for unit in run.plan()}
    for parts in committed.split_units.values():
        places |= {part.unit_id: part for part in parts}
    return places


def _planned(unit: str, committed: Committed) -> str:
    """The planned unit that a unit of retries goes back to, through any number of retries."""
    table = committed.table
    while True:
        row = table.filter(pc.and_(pc.equal(table["unit_id"], unit), pc.not_equal(table["supersedes"], "")))
        if not row.num_rows:
            return unit
        [unit] = json.loads(row["supersedes"][0].as_py())
