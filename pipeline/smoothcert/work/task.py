"""The contract of tasks: what fills one table from the pairs of a run.

    task = one table          small and picklable; made anew from the job wherever it is needed (tasks.py)
    worker = a task at work   one device; knows neither files nor commits
    session (runtime)         units in, committed rows out: the same for every task

A new kind of work is a task, its worker and its table, and a line in ``tasks.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from smoothcert.datasets import Pair, Source, UnitSpec
from smoothcert.errors import PairError
from smoothcert.store import RunDirectory, TableSchema
from smoothcert.work.inputs import Inputs


@dataclass(frozen=True, slots=True)
class Assignment:
    """A unit given to a worker.

    Attributes:
        token: the name of this attempt at the unit. What comes of a pair carries it, so that what is left of a failed
            attempt can never be taken for part of the next one.
        unit: the unit.
        pairs: its pairs, read as they are asked for; fewer than the unit has where its file turns out to be
            unreadable, which is the session's business.
    """

    token: str
    unit: UnitSpec
    pairs: Iterable[Pair]


class Outcome(Protocol):
    """What came of one pair."""

    @property
    def token(self) -> str:
        """The assignment that the pair came with."""

    @property
    def passes(self) -> int:
        """Noisy forward passes spent on it."""

    @property
    def failed(self) -> bool:
        """Whether the pair is to be quarantined."""

    @property
    def size(self) -> int:
        """Numbers that it holds until its rows are made."""


@dataclass(frozen=True, slots=True)
class UnitFailed:
    """An assignment that cannot be done, and why; other units may fare better."""

    token: str
    error: Exception


@dataclass(frozen=True, slots=True)
class DeviceLoad:
    """How a worker keeps its device busy.

    Attributes:
        busy_s: seconds that the device has worked for it so far.
        waiting: pairs that were read ahead and wait for the device.
    """

    busy_s: float
    waiting: int


@runtime_checkable
class ShowsLoad(Protocol):
    """A worker that can say so; of the others nothing is known."""

    @property
    def load(self) -> DeviceLoad:
        """The load now; asked from another thread."""


class Worker(Protocol):
    """A task at work on one device."""

    @property
    def draws_done(self) -> int:
        """Noisy forward passes so far, those of unfinished pairs included: whatever moves is a sign of life."""

    def run(self, assignments: Iterator[Assignment]) -> Iterator[Outcome | UnitFailed]:
        """Work through assignments as they come; one outcome for each pair.

        An assignment is complete when every pair of its unit has an outcome.

        Raises:
            SmoothcertError: the worker is of no further use.
        """

    def rows(self, unit_id: str, outcomes: Sequence[Any]) -> list[Any]:
        """The rows of some outcomes of one unit, with every column of the table but run_id and attempt."""

    def stop(self) -> None:
        """End ``run`` early, from another thread; what is unfinished is dropped."""

    def close(self) -> list[str]:
        """Release threads and memory, after ``run``; returns lines to tell."""


class Task(Protocol):
    """What fills one table from pairs."""

    @property
    def task_id(self) -> str:
        """Stands in the ids of its units and in their commits; empty for certification."""

    @property
    def name(self) -> str:
        """What people read."""

    @property
    def table(self) -> TableSchema:
        """The table that it fills."""

    def draws_per_pair(self, inputs: Inputs) -> float:
        """What a pair adds to ``Worker.draws_done``, at most or about; a first estimate."""

    @property
    def rests_on(self) -> TableSchema | None:
        """The table that its rows are made from: a pair that is retried there is done again here. None without."""

    def check(self, inputs: Inputs, source: Source, units: Sequence[UnitSpec]) -> None:
        """Raise whatever can be known to be wrong before any work.

        Raises:
            JobError, EncoderError: the task cannot do what the job asks.
        """

    def begin(self, run: RunDirectory) -> None:
        """Write what must be there before the first of its units."""

    def open(self, inputs: Inputs, run: RunDirectory) -> Worker:
        """Put it to work here.

        Raises:
            JobError, EncoderError, RunDirectoryError: it cannot work here.
        """

    def quarantine(self, inputs: Inputs, unit_id: str, pair: Pair, error: PairError) -> list[Any]:
        """The rows of a pair that cost every worker that touched it."""

    def end(self, run: RunDirectory) -> list[str]:
        """Close the books when no unit is left, or none can be done; returns lines to tell."""
