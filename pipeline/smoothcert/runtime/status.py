"""The state of a run, from its directory alone: commits, the plan, and the workers' event logs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from smoothcert.runtime.progress import WINDOW_S
from smoothcert.store import Committed, RunDirectory
from smoothcert.store.asked import AskedTask, asked_tasks
from smoothcert.store.events import WorkerState, read_workers


@dataclass(frozen=True)
class TaskStatus:
    """A task besides certification: its units, parts of split ones instead of the split ones."""

    task_id: str
    name: str
    units: int
    units_done: int


@dataclass(frozen=True)
class RunStatus:
    """A run at one moment.

    Attributes:
        run_id: the run.
        url: its directory.
        pairs, committed, quarantined: pairs planned, with a row, with a row that claims nothing.
        units, units_done: units planned (parts of split ones instead of the split ones), and committed.
        draws: draws spent on committed units.
        draws_per_s: as drivers at work measure it, over the last two minutes; where none says so, over the commits of
            such a time before the last one. None before the second one, and when nobody has worked for a while.
        eta_s: time left at that rate; None where it is unknown.
        workers: what each worker said last.
        drivers: what each driver said last.
        tasks: those besides certification that the run was asked for.
        now: when this was read, in seconds since 1970.
    """

    run_id: str
    url: str
    pairs: int
    committed: int
    quarantined: int
    units: int
    units_done: int
    draws: int
    draws_per_s: float | None
    eta_s: float | None
    workers: tuple[WorkerState, ...]
    drivers: tuple[WorkerState, ...] = ()
    tasks: tuple[TaskStatus, ...] = ()
    now: float = 0.0

    @property
    def complete(self) -> bool:
        """Every pair has its certificate, and every unit of each further task that was begun is done."""
        return self.committed >= self.pairs and all(task.units_done >= task.units for task in self.tasks)

    def as_mapping(self) -> Mapping[str, Any]:
        """For ``--json``."""
        said: dict[str, Any] = {
            name: [w.as_mapping() for w in getattr(self, name)] for name in ("workers", "drivers")
        }
        said["tasks"] = [asdict(task) for task in self.tasks]
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in said}
        return plain | {"complete": self.complete} | said

    def lines(self) -> list[str]:
        """For people."""
        share = self.committed / self.pairs if self.pairs else 1.0
        in_flight = sum(len(worker.units) for worker in self.workers if worker.alive)
        text = [
            f"{self.run_id}  {'complete' if self.complete else f'incomplete; {self._driver_seen()}'}",
            f"  pairs     {self.committed:,} of {self.pairs:,} committed ({share:.1%}), "
            f"{self.quarantined:,} quarantined",
            f"  units     {self.units_done:,} of {self.units:,} committed, {in_flight:,} in flight",
        ]
        for task in self.tasks:
            text.append(f"  {task.name}: {task.units_done:,} of {task.units:,} units committed")
        if self.draws_per_s is not None:
            eta = "" if self.eta_s is None or self.complete else f", about {self.eta_s:,.0f} s left"
            text.append(
                f"  draws     {self.draws:,}; {self.draws_per_s:,.0f} draws/s over the last two minutes{eta}"
            )
        else:
            text.append(f"  draws     {self.draws:,}")
        for worker in self.workers:
            text.append(f"  worker    {worker.describe()}")
        said = (*self.workers, *self.drivers)
        troubles = [
            (each.last_trouble_at, each.last_trouble_kind, each.last_trouble)
            for each in said
            # what a complete run was once warned of is over
            if each.last_trouble and not (self.complete and each.last_trouble_kind == "warning")
        ]
        for _, kind, trouble in sorted(troubles)[-3:]:
            text.append(f"  {kind:<10}{trouble}")
        return text

    def _driver_seen(self) -> str:
        if not self.drivers:
            return "no driver has started"
        last = max(self.drivers, key=lambda driver: driver.said_at)
        seconds = max(0.0, self.now - last.said_at)
        how = {"stopped": "was stopped", "failed": "failed", "done": "ended"}.get(last.ending, "ended")
        if last.alive:
            state = "last seen"
        elif last.ended:
            state = f"{how}, last seen"
        else:
            state = "not responding, last seen"
        return f"driver {state} {seconds:,.0f} s ago"


def read_status(run_url: str) -> RunStatus:
    """Read the state of a run.

    Raises:
        RunDirectoryError: there is no run, or it is damaged.
        StoreError: reading failed.
    """
    run = RunDirectory.open(run_url)
    everything = run.commits.load()
    committed = everything.certification
    table = committed.table
    times = sorted(
        (at, draws, ok + bad)
        for at, draws, ok, bad in zip(
            *(table[name].to_pylist() for name in ("committed_at", "draws", "ok", "quarantined")), strict=True
        )
        if ok + bad
    )
    now = time.time()
    said = read_workers(run.storage, now=now)
    left = run.info.pairs - committed.pairs
    rate = eta = None
    measured = _measured(said)
    if measured is not None:
        rate, pairs_per_s = measured
        eta = left / pairs_per_s if pairs_per_s and left > 0 else None
    elif any(each.alive for each in said) or (times and now - times[-1][0] < WINDOW_S):
        rate, eta = _from_commits(times, left)
    splits = committed.split_units
    units = run.info.units + sum(len(parts) - 1 for parts in splits.values())
    return RunStatus(
        run_id=run.run_id,
        url=run.url,
        pairs=run.info.pairs,
        committed=committed.pairs,
        quarantined=committed.quarantined,
        units=units,
        units_done=committed.planned_units,
        draws=committed.draws,
        draws_per_s=rate,
        eta_s=eta,
        workers=tuple(each for each in said if not each.drives),
        drivers=tuple(each for each in said if each.drives),
        tasks=tuple(_task_status(run, everything.of(task.task_id), task) for task in asked_tasks(run)),
        now=now,
    )


def _task_status(run: RunDirectory, committed: Committed, task: AskedTask) -> TaskStatus:
    splits = sum(len(parts) - 1 for parts in committed.split_units.values())
    return TaskStatus(task.task_id, task.name, run.info.units + splits, committed.planned_units)


def _measured(said: tuple[WorkerState, ...]) -> tuple[float, float] | None:
    """Draws/s and pairs/s of all drivers at work; None where none of them knows."""
    known = [
        (each.draws_per_s, each.pairs_per_s)
        for each in said
        if each.drives and each.alive and each.draws_per_s is not None and each.pairs_per_s is not None
    ]
    if not known:
        return None
    return sum(draws for draws, _ in known), sum(pairs for _, pairs in known)


def _from_commits(times: list[tuple[float, int, int]], pairs_left: int) -> tuple[float | None, float | None]:
    """Draws/s and the time left by the last commits (when, draws, pairs), oldest first."""
    if len(times) < 2:
        return None, None
    recent = [entry for entry in times if entry[0] >= times[-1][0] - WINDOW_S]
    if len(recent) < 2:
        recent = times[-2:]
    span = recent[-1][0] - recent[0][0]
    if span <= 0:
        return None, None
    drawn, paired = sum(entry[1] for entry in recent[1:]), sum(entry[2] for entry in recent[1:])
    return drawn / span, pairs_left * span / paired if paired else None
