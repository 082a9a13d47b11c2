"""Who works on what, who is to blame, and what is left: the scheduler's memory, without Ray and without clocks.

Blame. A worker that dies or hangs holds several units, and only one of them can be at fault. So all of them become
*suspects*: each runs again alone on a worker. A unit that loses a worker while it is alone is split, and its parts
run alone in turn, until a single pair has cost ``poison_budget`` workers: that pair is convicted and becomes a
quarantined row. Losses that the cluster announces as its own doing (preemption, a lost node) are no pair's fault;
they have a budget of their own.

The tail. As long as much is left, units stay as they were planned. When fewer wait than three for each worker, those
that hold more than a worker's fair share of the rest, by the draws that pairs have taken so far, are cut into smaller
ones, so that no worker idles while another has a large one before it. What a worker cannot finish in twice the usual
time is run again by an idle one, and after a deadline by any that has room.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from smoothcert.datasets import UnitSpec
from smoothcert.errors import ExecutorError
from smoothcert.runtime.pace import Pace
from smoothcert.store.retry_unit import RetryUnit

_SPLIT = 8
"""Parts that a unit at fault is cut into; they run beside each other."""
_SHARES = 3
"""Units that should wait for each worker before large ones are cut."""
LEAST_DRAWS = 5_000
"""Draws that are worth a unit of their own: a few seconds of work."""
_SLOW = 2.0
"""Times the usual time after which an idle worker runs a copy of a unit."""
_OVERDUE = 10.0
"""Times the usual time (but never before the lease) that is a unit's deadline: any worker may run a copy then."""


class Loss(StrEnum):
    """Why a worker is gone."""

    DIED = "died"
    HUNG = "hung"
    PREEMPTED = "preempted"


@dataclass(frozen=True)
class Errand:
    """A unit on its way.

    Attributes:
        unit: what to run.
        alone: it is suspected and runs with nothing beside it.
        losses: workers lost while it ran alone.
        errors: attempts that ended with an error of the unit itself.
    """

    unit: UnitSpec
    alone: bool = False
    losses: int = 0
    errors: int = 0


@dataclass(frozen=True)
class Split:
    """A unit is to be replaced by smaller ones: it is at fault, or too large for what is left."""

    unit: UnitSpec
    parts: tuple[UnitSpec, ...]


@dataclass(frozen=True)
class Conviction:
    """A unit of one pair that costs every worker that touches it."""

    unit: UnitSpec
    loss: Loss


class Ledger:
    """Keeps the books of one run.

    Args:
        units: what is to be done, in order.
        poison_budget: workers that one pair may cost before it is convicted.
        preemption_budget: workers that may be lost to the cluster before the run gives up.
        error_budget: attempts of a unit that may end with an error of its own.
        draws_per_pair: an estimate for the time before the first unit is done; 0 for none.
        lease_s: no unit is overdue before.

    Attributes:
        losses: workers lost.
        preemptions: those among them that the cluster took.
        failed: units given up, with the last error.
    """

    def __init__(
        self,
        units: Iterable[UnitSpec],
        *,
        poison_budget: int = 2,
        preemption_budget: int = 1000,
        error_budget: int = 3,
        draws_per_pair: float = 0.0,
        lease_s: float = math.inf,
    ) -> None:
        self._units = iter(units)
        self._fresh: deque[UnitSpec] = deque()
        self._pace = Pace(draws_per_pair)
        self._lease_s = lease_s
        self._again: deque[Errand] = deque()
        self._suspects: deque[Errand] = deque()
        self._running: dict[str, dict[str, tuple[Errand, float]]] = {}
        self._closed: set[str] = set()
        self._poison_budget = poison_budget
        self._preemption_budget = preemption_budget
        self._error_budget = error_budget
        self.preemptions = 0
        self.losses = 0
        self.failed: dict[str, BaseException] = {}

    @property
    def running(self) -> int:
        """Errands in flight that still matter (a copy of a finished unit does not)."""
        return sum(unit not in self._closed for held in self._running.values() for unit in held)

    def finished(self) -> bool:
        """Nothing waits and nothing that matters is out."""
        return not (self._again or self._suspects or self._look_ahead(1) or self.running)

    def even_out(self, workers: int) -> list[Split]:
        """Cut waiting units that are too large for what is left; the parts wait in their place.

        Args:
            workers: how many share the rest.

        Returns:
            What the driver has to write into the store before it asks for the next errand.
        """
        enough = _SHARES * workers
        if self._look_ahead(enough) + len(self._again) >= enough or not self._pace.draws_per_pair:
            return []
        waiting = [*self._again, *map(Errand, self._fresh)]
        share = -(-sum(len(errand.unit) for errand in waiting) // enough)
        size = max(share, int(LEAST_DRAWS / self._pace.draws_per_pair), 1)
        if all(len(errand.unit) < 2 * size for errand in waiting):
            return []
        splits = []
        self._again.clear()
        self._fresh.clear()
        for errand in waiting:
            if len(errand.unit) < 2 * size:
                self._again.append(errand)
                continue
            parts = _cut(errand.unit, -(-len(errand.unit) // size))
            self._closed.add(errand.unit.unit_id)
            self._again.extend(replace(errand, unit=part) for part in parts)
            splits.append(Split(errand.unit, parts))
        return splits

    def next_for(self, worker: str, capacity: int, now: float) -> Errand | None:
        """What a worker with room should start now, or None.

        Suspects come first and want an empty worker; a worker that holds a suspect gets nothing else. A unit beyond
        its deadline gets a copy at once; when nothing waits any more, an idle worker gets a copy of the slowest
        unit. Whoever is first commits it.
        """
        held = self._running.setdefault(worker, {})
        if len(held) >= capacity or any(errand.alone for errand, _ in held.values()):
            return None
        if self._suspects:
            if held:
                return None  # it runs empty first
            errand: Errand | None = self._suspects.popleft()
        elif overdue := self._late(now, held, _OVERDUE, self._lease_s):
            errand = overdue
        elif self._again:
            errand = self._again.popleft()
        elif self._look_ahead(1):
            errand = Errand(self._fresh.popleft())
        else:
            errand = None if held else self._late(now, held, _SLOW, 0.0)
        if errand is not None:
            held[errand.unit.unit_id] = (errand, now)
        return errand

    def deliver(self, worker: str, unit_id: str, now: float, draws: int = 0) -> bool:
        """A worker delivered a unit that took so many draws; False if that unit was closed before."""
        errand, started = self._running.get(worker, {}).pop(unit_id, (None, now))
        if unit_id in self._closed:
            return False
        if errand is not None:
            self._pace.note(len(errand.unit), draws, now - started)
        self._closed.add(unit_id)
        return True

    def fail(self, worker: str, unit_id: str, error: BaseException) -> bool:
        """A unit ended with an error of its own; False when it is given up."""
        errand, _ = self._running.get(worker, {}).pop(unit_id, (None, 0.0))
        if errand is None or unit_id in self._closed or self._runs(unit_id):
            return True
        errand = replace(errand, errors=errand.errors + 1)
        if errand.errors < self._error_budget:
            self._queue_of(errand).append(errand)
            return True
        self._closed.add(unit_id)
        self.failed[unit_id] = error
        return False

    def lose(self, worker: str, loss: Loss) -> list[Split | Conviction]:
        """A worker is gone with what it held: requeue, suspect, split or convict.

        Returns:
            What the driver has to write into the store before the run goes on.

        Raises:
            ExecutorError: the cluster took more workers than the preemption budget allows.
        """
        held = [errand for errand, _ in self._running.pop(worker, {}).values()]
        errands = [t for t in held if t.unit.unit_id not in self._closed and not self._runs(t.unit.unit_id)]
        self.losses += 1
        if loss is Loss.PREEMPTED:
            self.preemptions += 1
            if self.preemptions > self._preemption_budget:
                raise ExecutorError(
                    f"the cluster took {self.preemptions} workers away, more than "
                    f"executor.preemption_budget={self._preemption_budget}",
                    remedy="run the same command again to resume, preferably on more stable nodes",
                )
            for errand in reversed(errands):
                self._queue_of(errand).appendleft(errand)
            return []
        verdicts: list[Split | Conviction] = []
        for errand in errands:
            # all that it held counts: a copy that runs elsewhere too may be at fault as well
            if len(held) > 1:
                self._suspects.append(replace(errand, alone=True))
                continue
            errand = replace(errand, alone=True, losses=errand.losses + 1)
            if errand.losses < self._poison_budget:
                self._suspects.append(errand)
            elif len(errand.unit) > 1:
                verdicts.append(self._split(errand.unit))
            else:
                self._closed.add(errand.unit.unit_id)
                verdicts.append(Conviction(errand.unit, loss))
        return verdicts

    def withdraw(self, units: Iterable[UnitSpec]) -> None:
        """Forget waiting units: another process closed what they belong to."""
        gone = {unit.unit_id for unit in units}
        self._closed |= gone
        self._suspects = deque(errand for errand in self._suspects if errand.unit.unit_id not in gone)
        self._again = deque(errand for errand in self._again if errand.unit.unit_id not in gone)

    def _split(self, unit: UnitSpec) -> Split:
        parts = _cut(unit, _SPLIT)
        self._closed.add(unit.unit_id)
        for part in parts:
            # the whole has shown that the fault repeats: a part is cut further at its first loss, but a single
            # pair is convicted on its own record alone
            losses = self._poison_budget - 1 if len(part) > 1 else 0
            self._suspects.append(Errand(part, alone=True, losses=losses))
        return Split(unit, parts)

    def _queue_of(self, errand: Errand) -> deque[Errand]:
        """A suspect waits among suspects, so that it runs alone again."""
        return self._suspects if errand.alone else self._again

    def _runs(self, unit_id: str) -> bool:
        return any(unit_id in held for held in self._running.values())

    def _look_ahead(self, count: int) -> int:
        """How many fresh units wait, as far as ``count``: units are taken from their source as they are needed."""
        while len(self._fresh) < count and (unit := next(self._units, None)) is not None:
            self._fresh.append(unit)
        return len(self._fresh)

    def _late(
        self, now: float, mine: dict[str, tuple[Errand, float]], times: float, at_least_s: float
    ) -> Errand | None:
        """The oldest unit that takes so many times the usual time, if nobody runs a copy of it yet."""
        if self._pace.expected_s(1) is None:
            return None
        copies: dict[str, int] = {}
        for held in self._running.values():
            for unit_id in held:
                copies[unit_id] = copies.get(unit_id, 0) + 1
        late = [
            (started, errand)
            for held in self._running.values()
            for unit_id, (errand, started) in held.items()
            if unit_id not in self._closed
            and unit_id not in mine
            and not errand.alone
            and copies[unit_id] == 1
            and now - started > max(times * (self._pace.expected_s(len(errand.unit)) or 0.0), at_least_s)
        ]
        return min(late, key=lambda item: item[0])[1] if late else None


def _cut(unit: UnitSpec, count: int) -> tuple[UnitSpec, ...]:
    """A unit in at most ``count`` parts of about the same size."""
    if isinstance(unit, RetryUnit):
        return unit.cut(count)
    size = -(-len(unit) // min(count, len(unit)))
    starts = range(unit.start, unit.stop, size)
    return tuple(unit.part(start, min(start + size, unit.stop)) for start in starts)
