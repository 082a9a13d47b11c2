"""What attacks a run was asked for."""

from __future__ import annotations

from dataclasses import dataclass

from smoothcert.store import RunDirectory
from smoothcert.store.asked import asked_tasks


@dataclass(frozen=True, slots=True)
class AskedAttack:
    """An attack that every pair is owed.

    Attributes:
        attack_id: as in its rows.
        attack: its name.
        norm: of its budgets.
        objective: what it wants.
        reference: what that leaves; None for the objective's default.
        subjects: what it attacks.
        budgets: how far.
    """

    attack_id: str
    attack: str
    norm: str
    objective: str
    reference: str | None
    subjects: tuple[str, ...]
    budgets: tuple[float, ...]


def asked_attacks(run: RunDirectory) -> list[AskedAttack]:
    """The attacks among the tasks that were noted, in the order of ids.

    Raises:
        StoreError: reading failed.
    """
    return [
        AskedAttack(
            attack_id=task.task_id,
            attack=task.section["attack"],
            norm=task.section["norm"],
            objective=task.section["objective"],
            reference=task.section.get("reference"),
            subjects=tuple(task.section["subjects"]),
            budgets=tuple(task.section["budgets"]),
        )
        for task in asked_tasks(run)
        if "attack" in task.section
    ]
