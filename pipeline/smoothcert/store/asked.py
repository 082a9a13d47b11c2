"""Which tasks besides certification a run was asked for.

They are noted before the first of their units, so that none can go missing unseen.

asked/<task_id>.json   {"task_id": ..., "name": what people read, "section": the task's section of the job}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smoothcert.store.run_directory import RunDirectory

ASKED = "asked"


@dataclass(frozen=True, slots=True)
class AskedTask:
    """A task that every pair is owed.

    Attributes:
        task_id: as in its units and commits.
        name: what people read.
        section: its section of the job, contents filled in.
    """

    task_id: str
    name: str
    section: Mapping[str, Any]


def note_asked(run: RunDirectory, task: AskedTask) -> None:
    """Note a task; what is noted stays.

    Raises:
        StoreError: writing failed.
    """
    if f"{task.task_id}.json" not in run.storage.names(ASKED):
        data = {"task_id": task.task_id, "name": task.name, "section": task.section}
        run.write_document(f"{ASKED}/{task.task_id}.json", json.dumps(data, indent=2).encode() + b"\n")


def asked_tasks(run: RunDirectory) -> list[AskedTask]:
    """What was noted, in the order of ids.

    Raises:
        StoreError: reading failed.
    """
    found = []
    for name in sorted(run.storage.names(ASKED)):
        if name.endswith(".json"):
            data = json.loads(run.read_document(f"{ASKED}/{name}") or b"")
            section = data["section"]
            # before version 0.2 only attacks were noted
            task_id = data.get("task_id", data.get("attack_id"))
            found.append(AskedTask(task_id, data.get("name", f"{section.get('attack')} {task_id}"), section))
    return found
