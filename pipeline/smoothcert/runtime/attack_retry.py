"""Pairs that are attacked again: those that the user chose, and those certified since they were attacked.

A unit of an attack holds several rows of a pair, one for each subject and budget. What replaces rows replaces all that
a unit has of a pair, so a pair is always attacked again as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from smoothcert.job.attacks import AttackSection
from smoothcert.runtime.retry import Chosen, matching
from smoothcert.sql import Query
from smoothcert.store import Committed, RunDirectory
from smoothcert.store.units import attack_id_of

_QUARANTINED = "SELECT * FROM attacks WHERE status = 'quarantined'"
"""Nested, so that no condition reaches beyond these rows."""


def choose_attacks(run: RunDirectory, where: str) -> Chosen:
    """Pairs that have a quarantined attack row of which an SQL condition is true, whatever attack it is of.

    Args:
        run: the run directory.
        where: a condition on the columns of the table ``attacks``, e.g. ``error_class = 'NonFiniteError'``.

    Raises:
        QueryError: the condition is not valid SQL.
        StoreError: reading failed.
    """
    with Query([run]) as query:
        return matching(query, f"({_QUARANTINED}) WHERE", where, option="--retry")


def stale_attacks(run: RunDirectory, committed: Committed) -> Chosen:
    """Pairs whose certificate comes from a retry that was committed after their attack: the attack knew none.

    Without retries nothing is read.

    Raises:
        StoreError: reading failed.
    """
    if not any(attack_id_of(unit) == "" for unit in committed.replaced):
        return {}
    certified = "certificates WHERE status = 'ok' AND starts_with(unit_id, 'retry-')"
    with Query([run]) as query:
        retried = query.sql(f"SELECT pair_id, unit_id FROM {certified}")
        attacked = matching(query, "attacks WHERE", f"pair_id IN (SELECT pair_id FROM {certified})")
    by = dict(zip(retried["pair_id"].to_pylist(), retried["unit_id"].to_pylist(), strict=True))
    columns = (committed.table[name].to_pylist() for name in ("unit_id", "committed_at"))
    when: dict[str, float] = dict(zip(*columns, strict=True))
    stale = {
        unit: tuple(pair for pair in pairs if when.get(by[pair], 0.0) > when.get(unit, 0.0))
        for unit, pairs in attacked.items()
    }
    return {unit: pairs for unit, pairs in stale.items() if pairs}


def of_attacks(found: Chosen, attacks: Sequence[AttackSection]) -> Chosen:
    """What belongs to these attacks."""
    ids = {section.attack_id for section in attacks}
    return {unit: pairs for unit, pairs in found.items() if attack_id_of(unit) in ids}


def both(one: Mapping[str, tuple[str, ...]], other: Mapping[str, tuple[str, ...]]) -> Chosen:
    """The pairs of either, each once."""
    return {
        unit: tuple(sorted({*one.get(unit, ()), *other.get(unit, ())})) for unit in sorted({*one, *other})
    }
