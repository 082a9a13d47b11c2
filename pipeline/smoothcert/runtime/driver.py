"""From a job to a finished run: check everything, open the run, run what is left of each phase, close the books."""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

from smoothcert.datasets import Source, UnitSpec, open_source
from smoothcert.encoders import Encoder
from smoothcert.encoders.carried_code import CarriedFolder, carry_code
from smoothcert.errors import JobError, PairError, StoreError
from smoothcert.job import Job
from smoothcert.runtime.code_version import code_version
from smoothcert.runtime.data_record import FILES, check_images, differing_files, keep_data, refuse_unmoved
from smoothcert.runtime.driver_log import driver_log
from smoothcert.runtime.executor import Executor, ExecutorReport, LocalExecutor, Monitor
from smoothcert.runtime.metrics_file import MetricsFile
from smoothcert.runtime.noise_pin import pin_noise
from smoothcert.runtime.opening import Opening
from smoothcert.runtime.plan import DATA_FILE, Plan, make_plan
from smoothcert.runtime.results import UnitResult, UnitWriter, worker_name
from smoothcert.runtime.retry import Chosen, of_tasks, pending, retry_units
from smoothcert.runtime.sharing import elsewhere, still_open, tell_other_drivers
from smoothcert.storage import Storage, join
from smoothcert.store import CERTIFICATES, Committed, RunDirectory, RunIdentity, run_name
from smoothcert.store.events import DRIVER
from smoothcert.store.retry_unit import RetryUnit, chosen_pairs
from smoothcert.store.run_directory import RUN_FILE
from smoothcert.store.units import task_of
from smoothcert.work.certify.pool import draw_pool
from smoothcert.work.inputs import Inputs, load_checked, loadable_here
from smoothcert.work.task import Task
from smoothcert.work.tasks import Phase, phases_of, resolve

log = logging.getLogger(__name__)

POOL_FILE = "plan/pool.json"
_FOLD_EVERY = 512
"""Commits between two manifest snapshots while a run goes on."""
_NOTHING: Mapping[str, tuple[str, ...]] = MappingProxyType({})


@dataclass(frozen=True)
class PhaseReport:
    """How one phase of a run went in this session.

    Attributes:
        url: the run directory.
        pairs: pairs of the input, each counted once for every task of the phase.
        missing: those among them that are not done, or not done again as was asked.
        units_missing: units that are not done.
        failed: units given up in this session, with the reason.
        stopped: the session was told to stop.
        seconds: of this session.
        draws: of this session.
        resumed: pairs that were done before this session.
        notes: what the tasks have to tell at their end.
    """

    url: str
    pairs: int
    missing: int
    units_missing: int
    failed: dict[str, str]
    stopped: bool
    seconds: float
    draws: int
    resumed: int
    notes: tuple[str, ...]

    @property
    def done(self) -> int:
        """Pairs that are done, each counted once for every task of the phase."""
        return self.pairs - self.missing


class Driver:
    """One run of one job.

    Everything that can be wrong with the job, the data or the encoder shows while it is made, checked and opened,
    before any draw.

    Args:
        job: the validated job.
        encoder: the base encoder; loaded from the job when not given.
        mending: take images of quarantined pairs as they are now, for a retry.

    Attributes:
        asked: the job as it was given.
        sharers: how many runs share the workers of a Ray cluster, this one included.
    """

    def __init__(self, job: Job, encoder: Encoder | None = None, *, mending: bool = False) -> None:
        self.asked = job
        self.sharers: Callable[[], int] = lambda: 1
        self.source: Source = open_source(job.data)
        self._encoder = encoder
        self._mending = mending

    @cached_property
    def encoder(self) -> Encoder:
        """The base encoder, loaded and checked."""
        if self._encoder is not None:
            return self._encoder
        here = loadable_here(self.asked.encoder, self.asked.executor)
        return load_checked(self.asked.model_copy(update={"encoder": here}))

    @cached_property
    def inputs(self) -> Inputs:
        """What tasks compute with, as the driver needs it for its checks; workers load their own."""
        # a pool is drawn here, not read, so that nothing is created before the job is known to be right
        return Inputs(
            self.asked,
            self.encoder,
            self._draw_pool(),
            lambda section: loadable_here(section, self.asked.executor),
        )

    @cached_property
    def job(self) -> Job:
        """The job, with the contents of whatever its tasks name filled in."""
        return resolve(self.inputs)

    @cached_property
    def code(self) -> tuple[CarriedFolder, ...]:
        """Files that the job names, for workers elsewhere; as they are when this is asked for first."""
        return carry_code(self.job) if self.job.executor.kind != "local" else ()

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """What is done, in order."""
        return phases_of(self.job)

    @cached_property
    def plan(self) -> Plan:
        """What there is to do."""
        return make_plan(self.asked, self.source)

    @cached_property
    def identity(self) -> RunIdentity:
        """What determines the numbers."""
        return RunIdentity(self.asked, self.plan.data_digest, self.encoder.digest, code_version())

    @cached_property
    def url(self) -> str:
        """The run directory's URL."""
        output = self.asked.output
        return join(output.runs, output.run or run_name(self.identity))

    @property
    def run_exists(self) -> bool:
        """Whether the run directory is there already."""
        return Storage(self.url).exists(RUN_FILE)

    @cached_property
    def run(self) -> RunDirectory:
        """The run directory, created or resumed."""
        plan = self.plan
        if self.asked.data.moved_from is not None and not self.run_exists:
            refuse_unmoved(self.url, self.identity, plan.files)
        run = RunDirectory.create_or_open(
            self.url, self.identity, plan.units, differing=lambda found: differing_files(found, plan.files)
        )
        if self.inputs.pool and run.read_document(POOL_FILE) is None:
            run.write_document(POOL_FILE, json.dumps(self.inputs.pool).encode())
        if run.read_document(FILES) is None:
            keep_data(run, plan.files)
        check_images(run, self.source, plan, self.asked, mending=self._mending)
        about = plan.about_data().encode()
        if (
            run.read_document(DATA_FILE) != about
        ):  # mended images, or another thing that is no part of any pair
            run.write_document(DATA_FILE, about)
        return run

    def _here(self, unit: UnitSpec) -> UnitSpec:
        """A unit with its file where the job has it now: the data may have been moved since it was planned."""
        uri = self._places.get(unit.name, unit.source_uri)
        return unit if uri == unit.source_uri else replace(unit, source_uri=uri)

    @cached_property
    def _places(self) -> dict[str, str]:
        return {file.name: file.uri for file in self.plan.files}

    def check(self) -> None:
        """Raise whatever can be known to be wrong with any task before any work.

        Raises:
            JobError: a task cannot do what the job asks on this source.
            EncoderError: the encoder lacks what a task needs.
        """
        for phase in self.phases:
            for task in phase.tasks:
                task.check(self.inputs, self.source, self.plan.units)

    def work(
        self, phase_name: str, monitor: Monitor, again: Mapping[str, tuple[str, ...]] = _NOTHING
    ) -> PhaseReport:
        """Run what is left of a phase: units without a commit, stale pairs, and pairs chosen to be done again.

        Args:
            phase_name: which of ``phases``.
            monitor: what is told of it.
            again: of ``retry.choose``; pairs that were replaced since, and those of other tasks, are left out.

        Raises:
            SmoothcertError: what makes further work pointless; committed units are kept.
        """
        phase = self.phase(phase_name)
        with self._committing(phase, monitor) as told:
            return self._run(phase, told, again, lambda state: self.units_left(phase, state, again))

    def retry(self, phase_name: str, monitor: Monitor, again: Chosen) -> PhaseReport:
        """Run chosen pairs of a phase again, and nothing else.

        Raises:
            SmoothcertError: what makes further work pointless; committed units are kept.
        """
        phase = self.phase(phase_name)
        # what is mended for a certificate; an attack must see the image that was certified
        self._mending |= any(task.table == CERTIFICATES for task in phase.tasks)
        mine = of_tasks(again, {task.task_id for task in phase.tasks})
        with self._committing(phase, monitor) as told:
            return self._run(
                phase, told, mine, lambda state: map(self._here, retry_units(self.run, mine, state))
            )

    def phase(self, name: str) -> Phase:
        """The phase of this name.

        Raises:
            JobError: the job has none.
        """
        for phase in self.phases:
            if phase.name == name:
                return phase
        raise JobError(
            f"the job has no {name}", remedy=f"add a section '{name}'; compare it with an example in jobs/"
        )

    def units_left(
        self, phase: Phase, committed: Committed, again: Mapping[str, tuple[str, ...]] = _NOTHING
    ) -> Iterator[UnitSpec]:
        """The units that ``work`` would run."""
        return map(self._here, pending(self.run, phase.tasks, committed, again))

    @contextmanager
    def _committing(self, phase: Phase, monitor: Monitor) -> Iterator[Monitor]:
        """While this driver commits to the run: a monitor that also logs and counts."""
        metrics = MetricsFile(
            self.run.storage,
            self.asked.output.metrics,
            {"run": self.run.run_id, "phase": phase.name},
            self.run.info.pairs,
        )
        with self.run.committing(), driver_log(self.run, monitor, metrics) as told:
            labels = self.plan.labels
            if labels is not None and (labels.unknown or labels.refused):
                log.warning("labels: %s", labels)
            for note in self.encoder.notes:
                log.warning("%s", note)
            self.run.note(self.encoder.notes)
            yield told

    def _run(
        self,
        phase: Phase,
        monitor: Monitor,
        again: Mapping[str, tuple[str, ...]],
        left_of: Callable[[Committed], Iterator[UnitSpec]],
    ) -> PhaseReport:
        started = time.monotonic()
        run = self.run
        for task in phase.tasks:
            task.begin(run)
        state = run.commits.resume()
        pairs = run.info.pairs * len(phase.tasks)
        resumed = pairs - sum(len(unit) for unit in self.units_left(phase, state))
        books = _Books(run, monitor)
        report = ExecutorReport()
        others = tell_other_drivers(run)
        while not report.stopped:
            left = (unit for unit in left_of(state) if unit.unit_id not in report.failed)
            units = still_open(elsewhere(left) if others else left, run.commits.unit_ids)
            first = next(units, None)
            if first is None:
                break
            found = len(state)
            report = report.and_then(
                self._executor(phase).run(itertools.chain([first], units), books.monitor)
            )
            state = run.commits.load()
            if len(state) == found:
                break
            # another driver may have split units that are ours too: then their parts are left
        missing = [len(unit) for unit in self.units_left(phase, state, again)]
        notes = () if report.stopped else tuple(note for task in phase.tasks for note in task.end(run))
        return PhaseReport(
            url=run.url,
            pairs=pairs,
            missing=sum(missing),
            units_missing=len(missing),
            failed={unit: str(error) for unit, error in report.failed.items()},
            stopped=report.stopped,
            seconds=time.monotonic() - started,
            draws=books.draws,
            resumed=resumed,
            notes=notes,
        )

    def opening(self) -> Opening:
        """What workers start from."""
        return Opening(
            self.job,
            self.run.url,
            self.encoder.digest,
            self._pool(),
            exclusive=self.run.exclusive,
            code=self.code,
        )

    def _executor(self, phase: Phase) -> Executor:
        section = self.job.executor
        opening = self.opening()
        duties = _Duties(self, phase)
        if section.kind == "local":
            return LocalExecutor(
                lambda: opening.with_encoder(self.encoder),
                duties.commit,
                admit=duties.admit,
                in_flight=section.units_in_flight,
                grace_s=section.grace_s,
            )
        from smoothcert.runtime.ray_cluster import uses_gpu
        from smoothcert.runtime.ray_executor import RayExecutor

        return RayExecutor(
            opening,
            section,
            duties,
            uses_gpu=uses_gpu(self.job.encoder),
            draws_per_pair=phase.draws_per_pair(self.inputs),
            run=self.run.run_id,
            sharers=self.sharers,
        )

    def _draw_pool(self) -> tuple[str, ...]:
        """The retrieval pool of the job, drawn from the source; empty without retrieval."""
        if self.asked.retrieval is None:
            return ()
        return draw_pool(self.source, self.asked.retrieval, self.asked.certify.seed)

    def _pool(self) -> tuple[str, ...]:
        """The retrieval pool as it was drawn when the run was created."""
        stored = self.run.read_document(POOL_FILE) if self.asked.retrieval is not None else None
        return tuple(json.loads(stored)) if stored else ()


class _Books:
    """Counts what is committed in a session, and folds commits into a manifest now and then."""

    def __init__(self, run: RunDirectory, monitor: Monitor) -> None:
        self._run = run
        self._tell = monitor.on_result
        self._since_fold = 0
        self.draws = 0
        self.monitor = Monitor(self._on_result, monitor.on_progress, monitor.stop)

    def _on_result(self, result: UnitResult) -> None:
        self.draws += result.commit.draws
        self._since_fold += 1
        if self._since_fold >= _FOLD_EVERY:
            self._since_fold = 0
            try:
                self._run.commits.fold(min_new=_FOLD_EVERY // 2)
            except StoreError as exc:
                # only spares readers requests: the next one folds these commits too
                log.warning("commits were not folded into a manifest: %s", exc)
        self._tell(result)


class _Duties:
    """The driver's part in the store while an executor runs."""

    def __init__(self, driver: Driver, phase: Phase) -> None:
        self._driver = driver
        self._run = driver.run
        self._tasks: dict[str, Task] = {task.task_id: task for task in phase.tasks}

    def admit(self, noise: str) -> None:
        for task_id in self._tasks:
            pin_noise(self._run, task_id, noise)

    def commit(self, result: UnitResult) -> None:
        self._run.commits.commit(result.commit)

    def split(self, unit: UnitSpec, parts: tuple[UnitSpec, ...]) -> bool:
        if isinstance(unit, RetryUnit):
            return unit.unit_id not in self._run.commits.unit_ids()
        return self._run.commits.split(unit.unit_id, parts, worker=DRIVER + worker_name())

    def convict(self, unit: UnitSpec, error: PairError) -> UnitResult:
        task, inputs = self._tasks[task_of(unit.unit_id)], self._driver.inputs
        rows = [
            row
            for pair in self._driver.source.read(unit, chosen_pairs(unit))
            for row in task.quarantine(inputs, unit.unit_id, pair, error)
        ]
        result = UnitWriter(self._run, DRIVER + worker_name()).write(task, unit, rows, 0, 0.0)
        if not result.done:
            self.commit(result)
        return result
