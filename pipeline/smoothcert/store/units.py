"""Ids of units: which planned unit and which task they belong to.

No other file reads that out of a unit's id; ``datasets/records.py`` makes ids, and keeps the number where it cuts a
unit.

Every task of a run works on the planned units of that run, so that joining its rows with the certificates needs no
second run to be found. The id of a unit under a task is that of the planned unit with the task's id after the number,

    u00012-9f8e7d6c  ->  u00012.1a2b3c4d-9f8e7d6c

and certification, whose task id is empty, leaves it as it is. So everything made for units serves every task as it is:
scheduling, leases, splitting (parts keep the number), the commit as lock, resume as plan minus commits.
"""

from __future__ import annotations

from dataclasses import replace

from smoothcert.datasets import UnitSpec
from smoothcert.datasets.records import unit_id

CERTIFICATION = ""
"""The task id of certification."""


def unit_under(unit: UnitSpec, task_id: str) -> UnitSpec:
    """A planned unit under a task."""
    if task_id == CERTIFICATION:
        return unit  # a planned unit may have been named otherwise, by an older version
    number = number_under(plan_number(unit.unit_id), task_id)
    return replace(unit, unit_id=unit_id(number, unit.name, unit.start, unit.stop))


def plan_number(unit: str) -> str:
    """The number of the planned unit that a unit of any task, or a part of one, belongs to."""
    return unit.partition("-")[0].partition(".")[0]


def task_of(unit: str) -> str:
    """The task of a unit."""
    return unit.partition("-")[0].partition(".")[2]


def number_under(number: str, task_id: str) -> str:
    """What the id of a unit under a task begins with."""
    return number if task_id == CERTIFICATION else f"{number}.{task_id}"
