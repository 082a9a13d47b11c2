"""Which attacks a run was asked for: written before the first of their units, so that none can go missing unseen.

asked/<attack_id>.json   {"attack_id": ..., "section": the attack's section of the job}
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from smoothcert.job.attacks import AttackSection
from smoothcert.store import RunDirectory

ASKED = "asked"


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


def note_asked(run: RunDirectory, sections: Sequence[AttackSection]) -> None:
    """Note attacks, their contents filled in; what is noted stays.

    Raises:
        StoreError: writing failed.
    """
    present = set(run.storage.names(ASKED))
    for section in sections:
        if f"{section.attack_id}.json" not in present:
            text = json.dumps(
                {"attack_id": section.attack_id, "section": section.model_dump(mode="json")}, indent=2
            )
            run.write_document(f"{ASKED}/{section.attack_id}.json", text.encode() + b"\n")


def asked_attacks(run: RunDirectory) -> list[AskedAttack]:
    """What was noted, in the order of ids.

    Raises:
        StoreError: reading failed.
    """
    found = []
    for name in sorted(run.storage.names(ASKED)):
        if name.endswith(".json"):
            data = json.loads(run.read_document(f"{ASKED}/{name}") or b"")
            section = data["section"]
            found.append(
                AskedAttack(
                    attack_id=data["attack_id"],
                    attack=section["attack"],
                    norm=section["norm"],
                    objective=section["objective"],
                    reference=section.get("reference"),
                    subjects=tuple(section["subjects"]),
                    budgets=tuple(section["budgets"]),
                )
            )
    return found
