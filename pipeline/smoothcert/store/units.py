"""Units of attack work, in the run directory of the certificates that they test.

An attack job shares the run of its certificates: one directory holds both tables, so that joining them needs no
second run to be found, and the run's identity (data, encoder, noise) is the attack's too. Attacks are no part of
the run's fingerprint; each has its own, ``AttackSection.attack_id``. A unit of attack work is one unit of the plan
under one attack. Its id is that of the planned unit with the attack's id after the number,

    u00012-9f8e7d6c  ->  u00012.1a2b3c4d-9f8e7d6c

so that everything made for units serves it as it is: scheduling, leases, splitting (parts keep the number), the
commit as lock, resume as plan minus commits. Its commit names a part of the table ``attacks`` only and counts no
rows or draws, so the figures of certification do not move; adding an attack to a job runs that attack alone, and
changing one runs it anew beside the old rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from smoothcert.datasets import UnitSpec
from smoothcert.datasets.records import unit_id
from smoothcert.job.attacks import AttackSection
from smoothcert.store import Committed, RunDirectory


def attack_unit(unit: UnitSpec, attack_id: str) -> UnitSpec:
    """A planned unit under one attack."""
    number = f"{plan_number(unit.unit_id)}.{attack_id}"
    return replace(unit, unit_id=unit_id(number, unit.name, unit.start, unit.stop))


def plan_number(unit: str) -> str:
    """The number of the planned unit that a unit of any kind, or a part of one, belongs to."""
    return unit.partition("-")[0].partition(".")[0]


def attack_id_of(unit: str) -> str:
    """The attack of an attack unit; empty for other units."""
    return unit.partition("-")[0].partition(".")[2]


def pending_attacks(
    run: RunDirectory, attacks: Sequence[AttackSection], committed: Committed
) -> Iterator[UnitSpec]:
    """Attack units without a commit, one attack after the other; split ones appear as their parts."""
    planned = run.plan()
    for attack in attacks:
        waiting: list[UnitSpec] = []
        for unit in planned:
            waiting.append(attack_unit(unit, attack.attack_id))
            while waiting:
                candidate = waiting.pop()
                if candidate.unit_id not in committed.unit_ids:
                    yield candidate
                else:
                    waiting.extend(reversed(committed.split_units.get(candidate.unit_id, ())))
