"""Pairs that were quarantined when they were attacked and have been certified by a retry since: attacked again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from smoothcert.datasets import UnitSpec
from smoothcert.job_attacks import AttackSection
from smoothcert.runtime.attack_units import attack_id_of, attack_unit
from smoothcert.runtime.retry_unit import RetryUnit, retry_unit
from smoothcert.store import Committed, Query, RunDirectory


def stale_attacks(
    run: RunDirectory, attacks: Sequence[AttackSection], committed: Committed
) -> list[RetryUnit]:
    """Units that attack such pairs again; their rows replace the quarantined ones.

    A row is stale where the pair's certificate comes from a retry that was committed after it. Without retries
    nothing is read.

    Raises:
        StoreError: reading failed.
    """
    table = committed.table
    columns = (table[name].to_pylist() for name in ("unit_id", "committed_at", "supersedes"))
    when: dict[str, float] = {}
    replaced: dict[str, tuple[str, ...]] = {}
    for unit_id, moment, supersedes in zip(*columns, strict=True):
        when[unit_id] = moment
        if supersedes:
            replaced[unit_id] = tuple(json.loads(supersedes))
    if not any(attack_id_of(unit) == "" for unit in replaced):
        return []
    ids = {section.attack_id for section in attacks}
    with Query([run]) as query:
        rows = query.sql(
            "SELECT DISTINCT a.unit_id AS attacked, c.unit_id AS certified, pair_id FROM attacks a JOIN certificates c "
            "USING (run_id, pair_id) WHERE a.status = 'quarantined' AND c.status = 'ok'"
        ).to_pylist()
    stale: dict[str, list[str]] = {}
    for row in rows:
        attacked, certified = row["attacked"], row["certified"]
        if attack_id_of(attacked) in ids and certified in replaced and when[certified] > when[attacked]:
            stale.setdefault(attacked, []).append(row["pair_id"])
    if not stale:
        return []
    places = dict(_places(run, ids, committed))
    units = []
    for origin, pairs in sorted(stale.items()):
        planned = origin
        while planned in replaced:
            (planned,) = replaced[planned]
        units.append(retry_unit(places[planned], origin, tuple(pairs)))
    return units


def _places(run: RunDirectory, ids: set[str], committed: Committed) -> Iterator[tuple[str, UnitSpec]]:
    for unit in run.plan():
        for attack_id in ids:
            attacked = attack_unit(unit, attack_id)
            yield attacked.unit_id, attacked
    for parts in committed.split_units.values():
        for part in parts:
            yield part.unit_id, part
