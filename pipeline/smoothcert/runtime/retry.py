"""Which pairs run again, and in which units: quarantined ones to certify, and attacks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

from smoothcert.datasets import UnitSpec
from smoothcert.errors import QueryError, RunDirectoryError
from smoothcert.store import Committed, RunDirectory
from smoothcert.store.retry_unit import RetryUnit, retry_unit
from smoothcert.store.units import attack_id_of, attack_unit

if TYPE_CHECKING:
    from smoothcert.sql import Query

Chosen: TypeAlias = dict[str, tuple[str, ...]]
"""Pairs, sorted, by the unit whose rows show them now."""


def choose(run: RunDirectory, where: str) -> Chosen:
    """Quarantined pairs that an SQL condition is true of.

    Args:
        run: the run directory.
        where: a condition on the columns of the view ``quarantine``, e.g. ``error_class = 'DecodeError'``.

    Raises:
        QueryError: the condition is not valid SQL.
        StoreError: reading failed.
    """
    from smoothcert.sql import Query

    with Query([run]) as query:
        return matching(query, "quarantine WHERE", where, option="--where")


def matching(query: Query, rows: str, where: str, *, option: str = "") -> Chosen:
    """The pairs of some rows that an SQL condition is true of.

    Args:
        query: of one run.
        rows: a view, ``WHERE``, and perhaps a condition of its own.
        where: the condition.
        option: what the user calls it.

    Raises:
        QueryError: the condition is empty or not valid SQL.
    """
    if not where.strip():
        raise QueryError(
            f"{option} is empty", remedy=f"e.g. {option} \"error_class = 'DecodeError'\", or {option} true"
        )
    # the newline ends a comment in the condition
    found = query.sql(f"SELECT DISTINCT unit_id, pair_id FROM {rows} ({where}\n)")
    chosen: dict[str, list[str]] = {}
    for unit, pair in zip(found["unit_id"].to_pylist(), found["pair_id"].to_pylist(), strict=True):
        chosen.setdefault(unit, []).append(pair)
    return {unit: tuple(sorted(pairs)) for unit, pairs in sorted(chosen.items())}


def retry_units(
    run: RunDirectory, chosen: Mapping[str, tuple[str, ...]], committed: Committed
) -> list[RetryUnit]:
    """One unit for the chosen pairs of each earlier unit, of certification or of attacks.

    Raises:
        RunDirectoryError: an earlier unit is in no plan.
    """
    if not chosen:
        return []
    places = _places(run, committed, {attack_id_of(origin) for origin in chosen})
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
    return units


def left(units: Iterable[RetryUnit], committed: Committed) -> Iterator[RetryUnit]:
    """What of these units is not replaced yet."""
    hidden = committed.hidden
    replaced = set(zip(hidden["unit_id"].to_pylist(), hidden["pair_id"].to_pylist(), strict=True))
    for unit in units:
        pairs = tuple(pair for pair in unit.pairs if (unit.origin, pair) not in replaced)
        if pairs:
            yield retry_unit(unit, unit.origin, pairs)


def _places(run: RunDirectory, committed: Committed, attack_ids: set[str]) -> dict[str, UnitSpec]:
    """Every unit of the plan under these attacks (the empty one is certification), and every part of a split one."""
    planned = run.plan()
    places = {
        unit.unit_id: unit
        for attack_id in attack_ids
        for unit in (attack_unit(each, attack_id) if attack_id else each for each in planned)
    }
    for parts in committed.split_units.values():
        places |= {part.unit_id: part for part in parts}
    return places
