"""From a job to a finished run: check everything, open the run, run what is pending, close the books."""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from smoothcert.datasets import Source, UnitSpec, open_source
from smoothcert.encoders import Encoder
from smoothcert.engine import Failure, RowMaker
from smoothcert.engine.layout import plan_layout
from smoothcert.errors import PairError, RunDirectoryError, StoreError
from smoothcert.job import Job
from smoothcert.runtime.code_version import code_version
from smoothcert.runtime.driver_log import driver_log
from smoothcert.runtime.executor import Executor, ExecutorReport, LocalExecutor, Monitor
from smoothcert.runtime.opening import Opening, load_checked, loadable_here, texts_of
from smoothcert.runtime.plan import Plan, make_plan
from smoothcert.runtime.pool import draw_pool
from smoothcert.runtime.results import UnitResult, UnitWriter
from smoothcert.runtime.retry import left
from smoothcert.runtime.retry_unit import RetryUnit, only, supersedes
from smoothcert.store import Committed, RunDirectory, RunIdentity, join, run_name

log = logging.getLogger(__name__)

_POOL_FILE = "plan/pool.json"
_DATA_FILE = "plan/data.json"
_FOLD_EVERY = 512
"""Commits between two manifest snapshots while a run goes on."""


@dataclass(frozen=True)
class RunReport:
    """How a run ended.

    Attributes:
        url: the run directory.
        run_id: its name in every row.
        pairs: pairs of the input.
        rows: pairs that have their row now.
        failed: units given up in this session, with the reason.
        stopped: the session was told to stop.
        seconds: of this session.
        draws: of this session.
        resumed: pairs that were committed before this session.
    """

    url: str
    run_id: str
    pairs: int
    rows: int
    failed: dict[str, str]
    stopped: bool
    seconds: float
    draws: int
    resumed: int

    @property
    def missing(self) -> int:
        """Pairs without a row."""
        return self.pairs - self.rows


class Driver:
    """One certification of one job.

    Everything that can be wrong with the job, the data or the encoder shows while it is made and opened, before
    any draw.

    Args:
        job: the validated job.
        encoder: the base encoder; loaded from the job when not given.
        mending: take image files that the data names as they are now, for a retry.
    """

    def __init__(self, job: Job, encoder: Encoder | None = None, *, mending: bool = False) -> None:
        self.job = job
        self.source: Source = open_source(job.data)
        self._encoder = encoder
        self._mending = mending

    @cached_property
    def encoder(self) -> Encoder:
        """The base encoder, loaded and checked."""
        if self._encoder is not None:
            return self._encoder
        here = loadable_here(self.job.encoder, self.job.executor)
        return load_checked(self.job.model_copy(update={"encoder": here}))

    @cached_property
    def plan(self) -> Plan:
        """What there is to do."""
        return make_plan(self.job, self.source)

    @cached_property
    def identity(self) -> RunIdentity:
        """What determines the numbers."""
        return RunIdentity(self.job, self.plan.data_digest, self.encoder.digest, code_version())

    @cached_property
    def url(self) -> str:
        """The run directory's URL."""
        return join(self.job.output.runs, self.job.output.run or run_name(self.identity))

    @cached_property
    def run(self) -> RunDirectory:
        """The run directory, created or resumed."""
        pool = self.draw_pool()
        run = RunDirectory.create_or_open(self.url, self.identity, self.plan.units)
        if pool and run.read_document(_POOL_FILE) is None:
            run.write_document(_POOL_FILE, json.dumps(pool).encode())
        self._check_images(run)
        return run

    def _check_images(self, run: RunDirectory) -> None:
        """Keep what the plan says of the data; refuse a run whose image files are no longer those.

        A retry is for mended images: it takes them as they are now.
        """
        stored = run.read_document(_DATA_FILE)
        now = self.plan.images_digest
        changed = stored is not None and json.loads(stored).get("images", now) != now
        if changed and not self._mending:
            raise RunDirectoryError(
                f"image files that the data names were changed since '{run.url}' was begun ({self.plan.covers})",
                remedy="restore them or choose another directory (output.run); where only images of quarantined pairs "
                f"were mended: smoothcert retry {run.url} --where true",
            )
        if stored is None or changed:
            run.write_document(_DATA_FILE, self.plan.about_data().encode())

    def draw_pool(self) -> tuple[str, ...]:
        """The retrieval pool of the job, drawn from the source; empty without retrieval."""
        if self.job.retrieval is None:
            return ()
        return draw_pool(self.source, self.job.retrieval, self.job.certify.seed)

    def pool(self) -> tuple[str, ...]:
        """The retrieval pool as it was drawn when the run was created."""
        stored = self.run.read_document(_POOL_FILE) if self.job.retrieval is not None else None
        return tuple(json.loads(stored)) if stored else ()

    def certify(self, monitor: Monitor) -> RunReport:
        """Run everything that is not committed yet.

        Raises:
            SmoothcertError: what makes further work pointless; committed units are kept.
        """
        return self._work(monitor, self.run.pending)

    def retry(self, monitor: Monitor, units: Sequence[RetryUnit]) -> RunReport:
        """Run units of retried pairs; those of their pairs that were replaced already are left out.

        Raises:
            SmoothcertError: what makes further work pointless; committed units are kept.
        """
        self._mending = True
        return self._work(monitor, lambda committed: left(units, committed))

    def _work(self, monitor: Monitor, left_of: Callable[[Committed], Iterator[UnitSpec]]) -> RunReport:
        with self.run.committing(), driver_log(self.run, monitor) as told:
            labels = self.plan.labels
            if labels is not None and (labels.unknown or labels.refused):
                log.warning("labels: %s", labels)
            return self._work_alone(told, left_of)

    def _work_alone(self, monitor: Monitor, left_of: Callable[[Committed], Iterator[UnitSpec]]) -> RunReport:
        started = time.monotonic()
        run = self.run
        before = run.commits.resume()
        draws = 0
        since_fold = 0

        def on_result(result: UnitResult) -> None:
            nonlocal draws, since_fold
            draws += result.commit.draws
            since_fold += 1
            if since_fold >= _FOLD_EVERY:
                since_fold = 0
                try:
                    run.commits.fold(min_new=_FOLD_EVERY // 2)
                except StoreError as exc:
                    # only spares readers requests: the next one folds these commits too
                    log.warning("commits were not folded into a manifest: %s", exc)
            monitor.on_result(result)

        inner = Monitor(on_result, monitor.on_progress, monitor.stop)
        state, report = before, ExecutorReport()
        while True:
            pending = (unit for unit in left_of(state) if unit.unit_id not in report.failed)
            first = next(pending, None)
            if first is None or report.stopped:
                break
            found = len(state)
            report = report.and_then(self._executor().run(itertools.chain([first], pending), inner))
            state = run.commits.load()
            if len(state) == found:
                break
            # another driver may have split units that are ours too: then their parts are left
        after = state
        return RunReport(
            url=run.url,
            run_id=run.run_id,
            pairs=run.info.pairs,
            rows=after.pairs,
            failed={unit: str(error) for unit, error in report.failed.items()},
            stopped=report.stopped,
            seconds=time.monotonic() - started,
            draws=draws,
            resumed=before.pairs,
        )

    def opening(self) -> Opening:
        """What workers start from."""
        return Opening(self.job, self.run.url, self.encoder.digest, self.pool(), exclusive=self.run.exclusive)

    def _executor(self) -> Executor:
        section = self.job.executor
        opening = self.opening()
        duties = _Duties(self)
        if section.kind == "local":
            return LocalExecutor(
                lambda: opening.with_encoder(self.encoder),
                duties.commit,
                in_flight=section.units_in_flight,
                grace_s=section.grace_s,
            )
        from smoothcert.runtime.ray_cluster import uses_gpu
        from smoothcert.runtime.ray_executor import RayExecutor

        certify = self.job.certify
        return RayExecutor(
            opening,
            section,
            duties,
            uses_gpu=uses_gpu(self.job.encoder),
            draws_per_pair=certify.pilot_draws + certify.max_draws,
        )


class _Duties:
    """The driver's part in the store while an executor runs."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._run = driver.run

    def commit(self, result: UnitResult) -> None:
        self._run.commits.commit(result.commit)

    def split(self, unit: UnitSpec, parts: tuple[UnitSpec, ...]) -> bool:
        if isinstance(unit, RetryUnit):
            return unit.unit_id not in self._run.commits.unit_ids()
        return self._run.commits.split(unit.unit_id, parts, worker="driver")

    def convict(self, unit: UnitSpec, error: PairError) -> UnitResult:
        pairs = list(self._driver.source.read(unit, only(unit)))
        rows = self._rows.rows([Failure(unit.unit_id, pair, error) for pair in pairs])
        result = UnitWriter(self._run).write(unit.unit_id, rows, 0.0, supersedes(unit))
        if not result.done:
            self.commit(result)
        return result

    @cached_property
    def _rows(self) -> RowMaker:
        driver = self._driver
        texts = texts_of(driver.job, driver.encoder, ())
        layout = plan_layout(driver.job.certify, classes=0, pool=0, captions=False, retrieval_k=1)
        return RowMaker(driver.encoder, driver.job.certify, texts, layout)
