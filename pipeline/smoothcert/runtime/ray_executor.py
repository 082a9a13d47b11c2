"""Units on a Ray cluster: one actor per GPU (or CPU share), replaced when it dies, hangs or is taken away.

The driver holds unit descriptors and counts; pixels and rows never pass through it. A worker that does not draw for
``lease_s`` while it holds units is hung: it is killed on its node, and whatever it might still commit loses against
the commit of its successor.
"""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from smoothcert.datasets import UnitSpec
from smoothcert.errors import (
    EncoderError,
    ExecutorError,
    JobError,
    PairError,
    RunDirectoryError,
    SmoothcertError,
    StoreError,
    WorkerHungError,
    WorkerKilledError,
)
from smoothcert.job import ExecutorSection
from smoothcert.runtime.executor import STORE_FAILURES, DriverDuties, ExecutorReport, Monitor
from smoothcert.runtime.ledger import Errand, Ledger, Loss, Split
from smoothcert.runtime.progress import Progress
from smoothcert.runtime.ray_cluster import WorkerShare, end_process, join_cluster
from smoothcert.runtime.ray_worker import RayWorker, SessionBrokenError
from smoothcert.runtime.results import UnitResult
from smoothcert.runtime.session import Session

log = logging.getLogger(__name__)

_TICK_S = 0.5
_BEAT_S = 2.0
_GOODBYE_S = 5.0
_STARTS_LOST = 5
"""Workers that may die one after the other while they start, and nobody works, before the run gives up."""
_STARTS_REFUSED = 3
"""The same for workers that say why they cannot start, before the first one could: the job or the image is wrong."""
_SLOWEST_HIRING_S = 60.0
"""Pauses between workers that cannot start grow up to this."""
_LOSSES_WITHOUT_WORK = 20
"""Workers that may die in a session that has not finished a single unit: then it is no pair's fault."""
_LOOK_AGAIN_S = 10.0
"""Between two looks at what the cluster has, and how long a worker may wait for a place before that is said."""
_SAY_AGAIN_S = 300.0
_OWN_PAUSE_S = 5.0
"""A driver that was away for longer (a suspended machine, a slow store) does not count that time against workers."""
_START_S = 600.0
"""A worker that runs but is not ready after so long (or the lease, if that is longer) is hung."""


@dataclass
class _Held:
    """The driver's view of one actor.

    Attributes:
        name: of the actor, unique.
        label: what it is called in logs: host and process once it runs, as it calls itself.
    """

    name: str
    actor: Any
    hello_ref: Any
    start_ref: Any
    label: str = ""
    place: tuple[str, int] | None = None
    ready: bool = False
    errands: dict[Any, Errand] = field(default_factory=dict)
    beat_ref: Any = None
    beat_sent: float = 0.0
    progress: Progress = Progress(0, 0, 0)
    moved: float = 0.0
    hired: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.label = self.label or f"{self.name} (not started yet)"


class RayExecutor:
    """Runs units on Ray actors.

    Args:
        open_session: makes the worker session, called in the actor; must be picklable.
        section: workers, resources, leases, budgets.
        duties: the driver's side of the store.
        uses_gpu: whether workers ask for a GPU where ``section.gpus_per_worker`` does not say; None: if the cluster
            has one when the run begins.
        draws_per_pair: what a pair takes at most, until it is known what they take; 0 where that says nothing.
        run: names the run in Ray's dashboard and in the metrics.
        sharers: how many runs share the workers that the cluster has room for, or that the job asks for, this one
            included.
    """

    def __init__(
        self,
        open_session: Callable[[], Session],
        section: ExecutorSection,
        duties: DriverDuties,
        *,
        uses_gpu: bool | None,
        draws_per_pair: float = 0.0,
        run: str = "run",
        sharers: Callable[[], int] = lambda: 1,
    ) -> None:
        self._run_name = run
        self._sharers = sharers
        self._open_session = open_session
        self._section = section
        self._duties = duties
        self._uses_gpu = uses_gpu
        self._draws_per_pair = draws_per_pair
        self._held: dict[str, _Held] = {}
        self._retired = Progress(0, 0, 0)
        self._done = 0
        self._losses_in_a_row = 0
        self._starts_lost = self._starts_refused = 0
        self._anyone_ready = False
        self._unlike: set[str] = set()
        self._hire_after = 0.0
        self._complain_after = 0.0
        self._looked = time.monotonic()
        self._store_failures = 0

    def run(self, units: Iterable[UnitSpec], monitor: Monitor) -> ExecutorReport:
        """See ``Executor.run``."""
        ledger = Ledger(
            units,
            poison_budget=self._section.poison_budget,
            preemption_budget=self._section.preemption_budget,
            draws_per_pair=self._draws_per_pair,
            lease_s=self._section.lease_s,
        )
        report = ExecutorReport()
        with join_cluster(self._section):
            try:
                self._loop(ledger, monitor, report)
            except RayError as exc:
                raise ExecutorError(
                    f"the Ray cluster failed: {type(exc).__name__}: {exc}",
                    remedy="check `ray status`; run the same command again to resume",
                ) from exc
            finally:
                self._dismiss(all_idle=not report.stopped and ledger.finished())
        report.failed, report.losses = ledger.failed, ledger.losses
        return report

    def _loop(self, ledger: Ledger, monitor: Monitor, report: ExecutorReport) -> None:
        share = WorkerShare.of(self._section, uses_gpu=self._uses_gpu)
        worker_count, count_again = self._count(share), time.monotonic() + _LOOK_AGAIN_S
        grace_until: float | None = None
        self._looked = time.monotonic()
        while not ledger.finished():
            now = time.monotonic()
            self._forgive_own_pause(now)
            if monitor.stop.is_set():
                report.stopped = True
                grace_until = grace_until or now + self._section.grace_s
                if now > grace_until or not ledger.running:
                    return
            else:
                if now >= count_again:
                    worker_count, count_again = max(worker_count, self._count(share)), now + _LOOK_AGAIN_S
                while len(self._held) < worker_count and now >= self._hire_after:
                    self._hire(share)
                for split in ledger.even_out(worker_count):
                    log.info(
                        "unit %s was split into %d parts to share its work",
                        split.unit.unit_id,
                        len(split.parts),
                    )
                    if not self._duties.split(split.unit, split.parts):
                        ledger.withdraw(split.parts)
                self._feed(ledger, now)
            self._collect(ledger, monitor)
            self._check_beats(ledger, monitor)
            self._check_places(share)
            monitor.on_progress(self._total())

    def _count(self, share: WorkerShare) -> int:
        """Workers that this run may have now."""
        return max(1, share.workers() // self._sharers())

    def _dismiss(self, *, all_idle: bool) -> None:
        """End all workers; idle ones may say goodbye in their event log."""
        with contextlib.suppress(RayError):
            if all_idle:
                goodbyes = [held.actor.stop.remote() for held in self._held.values() if held.ready]
                ray.wait(goodbyes, num_returns=len(goodbyes), timeout=_GOODBYE_S) if goodbyes else None
            for held in self._held.values():
                ray.kill(held.actor, no_restart=True)

    def _hire(self, share: WorkerShare) -> None:
        name = f"smoothcert {self._run_name} {uuid.uuid4().hex[:8]}"
        actor_class = ray.remote(RayWorker)
        actor = actor_class.options(
            name=name,
            num_cpus=share.cpus,
            num_gpus=share.gpus,
            max_concurrency=self._section.units_in_flight + 3,
            max_restarts=0,
            max_task_retries=0,
        ).remote(self._open_session, self._run_name)
        self._held[name] = _Held(name, actor, actor.hello.remote(), actor.start.remote())

    def _feed(self, ledger: Ledger, now: float) -> None:
        # one unit each per round, so that a short queue is shared before anyone gets a second
        for load in range(self._section.units_in_flight):
            for held in self._held.values():
                if not held.ready or len(held.errands) > load:
                    continue
                errand = ledger.next_for(held.name, self._section.units_in_flight, now)
                if errand is not None:
                    held.moved = now if not held.errands else held.moved
                    held.errands[held.actor.run.remote(errand.unit)] = errand

    def _collect(self, ledger: Ledger, monitor: Monitor) -> None:
        refs = {ref: held for held in self._held.values() for ref in held.errands}
        hellos = {held.hello_ref: held for held in self._held.values() if held.place is None}
        births = {held.start_ref: held for held in self._held.values() if not held.ready}
        waiting = [*refs, *hellos, *births]
        if not waiting:
            monitor.stop.wait(_TICK_S)
            return
        ready, _ = ray.wait(waiting, num_returns=1, timeout=_TICK_S)
        if ready:
            # take whatever else is done by now in the same round
            ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
        for ref in ready:
            held = hellos.get(ref) or births.get(ref) or refs[ref]
            if held.name not in self._held:
                continue  # lost a moment ago, with all it held
            try:
                value = ray.get(ref)
            except RayTaskError as exc:
                self._errand_failed(ledger, monitor, held, ref, exc)
            except RayError as exc:
                # dead, ended by Ray for want of memory, out of reach, or its answer is lost: it is of no use
                self._discard(held)
                self._lose(ledger, monitor, held, self._cause(held, exc), exc)
            else:
                if ref in hellos:
                    (held.label, held.place), held.moved = value, time.monotonic()
                elif ref in births:
                    self._admit(held, value)
                else:
                    self._deliver(ledger, monitor, held, ref, value)

    def _admit(self, held: _Held, noise: str) -> None:
        """A worker is ready: it may draw if its noise is the run's; else it goes, unless no other is there.

        Raises:
            RunDirectoryError: nobody is left who draws the run's noise.
        """
        try:
            self._duties.admit(noise)
        except RunDirectoryError as refusal:
            del self._held[held.name]
            self._discard(held)
            self._hire_after = time.monotonic() + _SLOWEST_HIRING_S
            if not self._held:
                raise
            log.log(logging.DEBUG if noise in self._unlike else logging.WARNING, "not used: %s", refusal)
            self._unlike.add(noise)
            return
        held.ready, held.moved = True, time.monotonic()
        self._anyone_ready, self._starts_lost, self._starts_refused = True, 0, 0

    def _deliver(self, ledger: Ledger, monitor: Monitor, held: _Held, ref: Any, result: UnitResult) -> None:
        del held.errands[ref]
        self._done += 1
        self._losses_in_a_row = self._store_failures = 0
        held.moved = time.monotonic()
        if ledger.deliver(held.name, result.unit_id, held.moved, result.commit.draws):
            if not result.done:
                self._duties.commit(result)
            monitor.on_result(result)

    def _errand_failed(
        self, ledger: Ledger, monitor: Monitor, held: _Held, ref: Any, exc: RayTaskError
    ) -> None:
        cause = exc.cause if isinstance(exc.cause, Exception) else exc
        if ref == held.start_ref:
            self._start_failed(ledger, monitor, held, cause)
            return
        if isinstance(cause, (EncoderError, JobError, RunDirectoryError)):
            raise cause from None  # no other worker would fare better
        if isinstance(cause, SessionBrokenError):
            self._discard(held)
            self._lose(ledger, monitor, held, Loss.DIED, cause)
            return
        errand = held.errands.pop(ref)
        error = (
            cause if isinstance(cause, SmoothcertError) else ExecutorError(f"{type(cause).__name__}: {cause}")
        )
        self._store_failures = self._store_failures + 1 if isinstance(error, StoreError) else 0
        if self._store_failures >= STORE_FAILURES:
            raise error
        if ledger.fail(held.name, errand.unit.unit_id, error):
            log.warning(
                "unit %s failed on %s and will be tried again: %s", errand.unit.unit_id, held.label, error
            )
        else:
            log.error("giving up on unit %s: %s", errand.unit.unit_id, error)

    def _start_failed(self, ledger: Ledger, monitor: Monitor, held: _Held, cause: Exception) -> None:
        """A worker says why it cannot start: its node's fault as long as others can, else the job's."""
        refused = min(_STARTS_REFUSED, len(self._held) + self._starts_refused)
        self._starts_refused += 1
        limit = _STARTS_LOST if self._anyone_ready else refused
        if self._starts_refused >= limit and not self._anyone_works():
            known = isinstance(cause, SmoothcertError)
            raise cause if known else ExecutorError(f"a worker cannot start: {cause}") from cause
        self._discard(held)
        self._lose(ledger, monitor, held, Loss.DIED, f"it cannot start: {cause}")

    def _anyone_works(self) -> bool:
        return any(held.ready for held in self._held.values())

    def _lose(self, ledger: Ledger, monitor: Monitor, held: _Held, loss: Loss, reason: object) -> None:
        del self._held[held.name]
        self._retired += held.progress.ended()
        log.warning(
            "lost worker %s (%s): %s",
            held.label,
            loss.value,
            str(reason).splitlines()[0],
            extra={"lost_worker": held.label},
        )
        if loss is not Loss.PREEMPTED:  # what the cluster takes has a budget of its own
            self._count_loss(held, reason)
        self._settle(ledger, monitor, held, loss)

    def _count_loss(self, held: _Held, reason: object) -> None:
        now = time.monotonic()
        self._losses_in_a_row += 1
        if not held.ready and now >= self._hire_after:  # those that die together count once
            self._hire_after = now + min(2.0**self._starts_lost, _SLOWEST_HIRING_S)
            self._starts_lost += 1
        starting = self._starts_lost > _STARTS_LOST and not self._anyone_works()
        if starting or (not self._done and self._losses_in_a_row > _LOSSES_WITHOUT_WORK):
            raise ExecutorError(
                f"{self._losses_in_a_row} workers died {'while starting' if starting else 'before any unit was done'}"
                f", the last one with: {reason}",
                remedy="look at the worker logs of Ray; check memory and the encoder with `smoothcert doctor`",
            )

    def _settle(self, ledger: Ledger, monitor: Monitor, held: _Held, loss: Loss) -> None:
        """Hand back what a lost worker held, or split and convict what is at fault."""
        for verdict in ledger.lose(held.name, loss):
            unit = verdict.unit
            where = f"pairs {unit.start} to {unit.stop - 1} of {unit.source_uri}"
            if isinstance(verdict, Split):
                log.warning("%s keep crashing workers; trying them in %d parts", where, len(verdict.parts))
                if not self._duties.split(unit, verdict.parts):
                    ledger.withdraw(verdict.parts)
            elif verdict.loss is Loss.HUNG:
                error: PairError = WorkerHungError(
                    f"the worker on this pair made no progress for {self._section.lease_s:g} s"
                )
                monitor.on_result(self._duties.convict(unit, error))
            else:
                error = WorkerKilledError("every worker process that tried this pair died")
                monitor.on_result(self._duties.convict(unit, error))

    def _check_beats(self, ledger: Ledger, monitor: Monitor) -> None:
        now = time.monotonic()
        for held in list(self._held.values()):
            if not held.ready:
                if held.place is not None and now - held.moved > max(_START_S, self._section.lease_s):
                    self._kill(held)
                    self._lose(ledger, monitor, held, Loss.HUNG, "it did not become ready in time")
                continue
            if held.beat_ref is None and now - held.beat_sent >= _BEAT_S:
                held.beat_ref, held.beat_sent = held.actor.progress.remote(), now
            elif held.beat_ref is not None and ray.wait([held.beat_ref], timeout=0)[0]:
                beat_ref, held.beat_ref = held.beat_ref, None
                try:
                    progress = ray.get(beat_ref)
                    if progress != held.progress:  # how busy it looks is no work
                        held.moved = now
                    held.progress = progress
                except (RayActorError, OutOfMemoryError) as exc:
                    if not held.errands:  # else it shows in them
                        self._lose(ledger, monitor, held, self._cause(held, exc), exc)
                        continue
                except RayError:
                    pass  # silence is what the lease is for
            if not held.errands:
                held.moved = now
            elif now - held.moved > self._section.lease_s:
                self._kill(held)
                self._lose(ledger, monitor, held, Loss.HUNG, f"no progress for {self._section.lease_s:g} s")

    def _forgive_own_pause(self, now: float) -> None:
        """Leases measure what workers do while somebody asks them."""
        pause = now - self._looked - _OWN_PAUSE_S
        self._looked = now
        if pause > 0:
            log.warning(
                "the driver was suspended for %.0f s; worker deadlines are extended by that",
                pause + _OWN_PAUSE_S,
            )
            for held in self._held.values():
                held.moved += pause
                held.hired += pause

    def _check_places(self, share: WorkerShare) -> None:
        """Say that workers wait for a place in the cluster; give up when for long there was none for any."""
        now = time.monotonic()
        waiting = [now - held.hired for held in self._held.values() if held.place is None]
        if not waiting or max(waiting) < _LOOK_AGAIN_S:
            return
        if len(waiting) == len(self._held) and min(waiting) > self._section.placement_s:
            raise ExecutorError(
                f"no worker could be placed within executor.placement_s={self._section.placement_s:g}: "
                f"{share.unplaced()}",
                remedy="request less, add nodes or raise executor.placement_s; the same command resumes",
            )
        if now >= self._complain_after:
            self._complain_after = now + _SAY_AGAIN_S
            are = "1 worker is" if len(waiting) == 1 else f"{len(waiting):,} workers are"
            log.warning("%s pending: %s", are, share.unplaced())

    def _kill(self, held: _Held) -> None:
        """End a worker for good, whatever state its process is in."""
        assert held.place is not None
        end_process(held.place)
        self._discard(held)

    def _discard(self, held: _Held) -> None:
        """Tell Ray that a worker is not needed any more."""
        with contextlib.suppress(RayError):
            ray.kill(held.actor, no_restart=True)

    def _cause(self, held: _Held, exc: RayError) -> Loss:
        """Whether the cluster took the worker away or the worker died of its work."""
        if getattr(exc, "preempted", False):
            return Loss.PREEMPTED
        dead = {node["NodeID"] for node in ray.nodes() if not node["Alive"]}
        return Loss.PREEMPTED if held.place is not None and held.place[0] in dead else Loss.DIED

    def _total(self) -> Progress:
        return sum((held.progress for held in self._held.values()), self._retired)
