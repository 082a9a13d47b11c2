"""Who works on what, who is to blame, and what is left: the scheduler's memory, without Ray and without clocks.

Blame. A worker that dies or hangs holds several units, and only one of them can be at fault. So all of them become
*suspects*: each runs again alone on a worker. A unit that loses a worker while it is alone is split, and its parts
run alone in turn, until a single pair has cost ``poison_budget`` workers: that pair is convicted and becomes a
quarantined row. Losses that the cluster announces as its own doing (preemption, a lost node) are no pair's fault;
they have a budget of their own.

A unit that was split is committed by the driver, as one commit over the parts of its segments.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from smoothcert.datasets import UnitSpec
from smoothcert.errors import ExecutorError
from smoothcert.runtime.results import UnitResult

_SPLIT = 8
"""Parts that a unit at fault is cut into; they run beside each other."""


class Loss(StrEnum):
    """Why a worker is gone."""

    DIED = "died"
    HUNG = "hung"
    PREEMPTED = "preempted"


@dataclass(frozen=True)
class Task:
    """A unit, or a segment of one, to be run by one worker.

    Attributes:
        unit: what to run.
        whole: the planned unit that it belongs to; the same object when it was never split.
        alone: it is suspected and runs with nothing beside it.
        losses: workers lost while it ran alone.
        errors: attempts that ended with an error of the unit itself.
    """

    unit: UnitSpec
    whole: UnitSpec
    alone: bool = False
    losses: int = 0
    errors: int = 0

    @property
    def segment(self) -> bool:
        """Whether the driver commits it as part of a split unit."""
        return self.unit.unit_id != self.whole.unit_id


@dataclass
class _Split:
    """A unit in segments: what came back, and how many are still out."""

    whole: UnitSpec
    open: int
    results: list[UnitResult] = field(default_factory=list)


@dataclass(frozen=True)
class Conviction:
    """One pair that costs every worker that touches it."""

    task: Task
    loss: Loss


@dataclass(frozen=True)
class Assembled:
    """All segments of a split unit are there: the driver commits them together."""

    whole: UnitSpec
    results: tuple[UnitResult, ...]


class Ledger:
    """Keeps the books of one run.

    Args:
        units: what is to be done, in order.
        poison_budget: workers that one pair may cost before it is convicted.
        preemption_budget: workers that may be lost to the cluster before the run gives up.
        error_budget: attempts of a unit that may end with an error of its own.
    """

    def __init__(
        self,
        units: Iterable[UnitSpec],
        *,
        poison_budget: int = 2,
        preemption_budget: int = 1000,
        error_budget: int = 3,
    ) -> None:
        self._units = iter(units)
        self._again: deque[Task] = deque()
        self._alone: deque[Task] = deque()
        self._running: dict[str, dict[str, tuple[Task, float]]] = {}
        self._splits: dict[str, _Split] = {}
        self._done: set[str] = set()
        self._durations: deque[float] = deque(maxlen=200)
        self._poison_budget = poison_budget
        self._preemption_budget = preemption_budget
        self._error_budget = error_budget
        self._exhausted = False
        self.preemptions = 0
        self.losses = 0
        self.failed: dict[str, BaseException] = {}

    @property
    def running(self) -> int:
        """Tasks in flight, copies counted."""
        return sum(len(tasks) for tasks in self._running.values())

    def tasks_of(self, worker: str) -> list[Task]:
        """What a worker holds."""
        return [task for task, _ in self._running.get(worker, {}).values()]

    def finished(self) -> bool:
        """Nothing waits and nothing is out."""
        return self._peek_empty() and not self.running

    def next_for(self, worker: str, capacity: int, now: float) -> Task | None:
        """What a worker with room should start now, or None.

        Suspects come first and want an empty worker; a worker that holds a suspect gets nothing else.
        """
        held = self._running.get(worker, {})
        if len(held) >= capacity or any(task.alone for task, _ in held.values()):
            return None
        task: Task | None = None
        if self._alone:
            if held:
                return None  # let it run empty, then give it the suspect
            task = self._alone.popleft()
        elif self._again:
            task = self._again.popleft()
        else:
            unit = next(self._units, None)
            if unit is None:
                self._exhausted = True
                task = self._copy_of_straggler(worker, now)
            else:
                task = Task(unit, unit)
        if task is not None:
            self._running.setdefault(worker, {})[task.unit.unit_id] = (task, now)
        return task

    def completed(self, worker: str, result: UnitResult, now: float) -> Assembled | None:
        """A worker delivered; a split unit whose last segment this was comes back assembled."""
        task, started = self._running.get(worker, {}).pop(result.unit_id, (None, now))
        if task is None or result.unit_id in self._done:
            return None  # a copy of a unit that another worker already finished
        self._durations.append(now - started)
        return self._settle(task, result)

    def _settle(self, task: Task, result: UnitResult) -> Assembled | None:
        self._done.add(task.unit.unit_id)
        if not task.segment:
            return None
        split = self._splits[task.whole.unit_id]
        split.results.append(result)
        split.open -= 1
        if split.open:
            return None
        del self._splits[task.whole.unit_id]
        return Assembled(task.whole, tuple(split.results))

    def erred(self, worker: str, unit_id: str, error: BaseException) -> bool:
        """A unit ended with an error of its own; True when it is tried again."""
        task, _ = self._running.get(worker, {}).pop(unit_id, (None, 0.0))
        if task is None or unit_id in self._done:
            return True
        task = replace(task, errors=task.errors + 1)
        if task.errors < self._error_budget:
            self._again.append(task)
            return True
        self.failed[task.whole.unit_id] = error
        return False

    def lost(self, worker: str, loss: Loss) -> list[Conviction]:
        """A worker is gone with what it held: requeue, suspect, split or convict.

        Raises:
            ExecutorError: the cluster took more workers than the preemption budget allows.
        """
        tasks = [task for task, _ in self._running.pop(worker, {}).values()]
        tasks = [task for task in tasks if task.unit.unit_id not in self._done]
        tasks = [task for task in tasks if not self._runs_elsewhere(task)]
        self.losses += 1
        if loss is Loss.PREEMPTED:
            self.preemptions += 1
            if self.preemptions > self._preemption_budget:
                raise ExecutorError(
                    f"the cluster took {self.preemptions} workers away, more than the budget of "
                    f"{self._preemption_budget}",
                    remedy="run the same command again to resume, on more stable nodes",
                )
            self._again.extendleft(reversed(tasks))
            return []
        convicted = []
        for task in tasks:
            if not task.alone and len(tasks) > 1:
                self._alone.append(replace(task, alone=True))
            elif len(task.unit) > 1 and task.losses + 1 >= min(2, self._poison_budget):
                self._cut(task)
            elif task.losses + 1 >= self._poison_budget:
                convicted.append(Conviction(task, loss))
            else:
                self._alone.append(replace(task, alone=True, losses=task.losses + 1))
        return convicted

    def settle_conviction(self, conviction: Conviction, result: UnitResult) -> Assembled | None:
        """The driver wrote the convicted pair's quarantined row."""
        return self._settle(conviction.task, result)

    def _cut(self, task: Task) -> None:
        unit = task.unit
        size = -(-len(unit) // _SPLIT)
        bounds = [(i, min(i + size, unit.stop)) for i in range(unit.start, unit.stop, size)]
        if len(bounds) == 1:  # not possible while size < len(unit); kept exact for two pairs
            bounds = [(unit.start, unit.start + 1), (unit.start + 1, unit.stop)]
        parts = [Task(unit.part(a, b), task.whole, alone=True) for a, b in bounds]
        whole_id = task.whole.unit_id
        if task.segment:
            self._splits[whole_id].open += len(parts) - 1
        else:
            self._splits[whole_id] = _Split(task.whole, len(parts))
        self._alone.extend(parts)

    def _runs_elsewhere(self, task: Task) -> bool:
        return any(task.unit.unit_id in tasks for tasks in self._running.values())

    def _copy_of_straggler(self, worker: str, now: float) -> Task | None:
        """The oldest unit that takes twice the usual time, if nobody runs a copy of it yet."""
        if len(self._durations) < 5:
            return None
        usual = statistics.median(self._durations)
        copies: dict[str, int] = {}
        for tasks in self._running.values():
            for unit_id in tasks:
                copies[unit_id] = copies.get(unit_id, 0) + 1
        slow = [
            (started, task)
            for other, tasks in self._running.items()
            for task, started in tasks.values()
            if other != worker and not task.alone and copies[task.unit.unit_id] == 1
            and now - started > 2 * usual
        ]
        return min(slow, key=lambda item: item[0])[1] if slow else None

    def _peek_empty(self) -> bool:
        if self._again or self._alone:
            return False
        if not self._exhausted:
            unit = next(self._units, None)
            if unit is None:
                self._exhausted = True
            else:
                self._units = _chain(unit, self._units)
                return False
        return True


def _chain(first: UnitSpec, rest: Iterator[UnitSpec]) -> Iterator[UnitSpec]:
    yield first
    yield from rest
