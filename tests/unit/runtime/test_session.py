"""A worker's session on a real run directory: overlapping units, two tasks, failing sources and stores, stops."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smoothcert.attacks.pgd import PGD
from smoothcert.datasets import Pair, UnitSpec, open_source, write_synthetic
from smoothcert.encoders import KnownEncoder
from smoothcert.errors import EncoderError, ExecutorError, RunDirectoryError, SourceError, StoreError
from smoothcert.job import parse_job
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.executor import LocalExecutor, Monitor
from smoothcert.runtime.opening import Opening
from smoothcert.runtime.results import UnitResult, UnitWriter
from smoothcert.runtime.session import Session
from smoothcert.runtime.status import read_status
from smoothcert.store.events import EventLog
from smoothcert.store.units import task_of, unit_under
from smoothcert.work.inputs import Inputs
from smoothcert.work.task import Task, Worker

ENCODER = KnownEncoder.rotating(1.0, input_size=(8, 8))
JOB = """
name: mini
data: {{format: parquet, uri: "{data}"}}
encoder: {{model: "bundled:digits-clip", slots: 4, chunk: 8, threads: 1}}
certify: {{sigma: 0.25, alpha: 0.01, pilot_draws: 7, max_draws: 8, radii: [0.1]}}
executor: {{pairs_per_unit: 10}}
output: {{runs: "{runs}"}}
tracking: {{enabled: false}}
attacks: [{{attack: pgd, norm: l2, budget: 0.5, threshold: 0.9, steps: 2, subjects: bare}}]
"""
"""Each task has one row a pair."""


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    write_synthetic(str(tmp_path / "data"), "parquet", pairs=40, pairs_per_shard=20, size=8, seed=1)
    return Driver(parse_job(JOB.format(data=tmp_path / "data", runs=tmp_path / "runs")), ENCODER)


class Shaky:
    """A source whose read of some unit fails, a number of times, after a number of pairs."""

    def __init__(self, source: Any, unit_id: str, times: int, after: int, kind: type[Exception]) -> None:
        self._source, self._unit_id, self._left, self._after, self._kind = source, unit_id, times, after, kind
        self.reads: Counter[str] = Counter()

    def read(self, unit: Any, only: Any = None) -> Iterator[Pair]:
        self.reads[unit.unit_id] += 1
        for number, pair in enumerate(self._source.read(unit, only)):
            if unit.unit_id == self._unit_id and self._left and number == self._after:
                self._left -= 1
                raise self._kind("the store hiccuped")
            yield pair


def session(
    driver: Driver,
    source: Any = None,
    writer: Any = None,
    open_worker: Callable[[Task], Worker] | None = None,
) -> Session:
    run, inputs = driver.run, Inputs(driver.job, ENCODER)
    return Session(
        {task.task_id: task for phase in driver.phases for task in phase.tasks},
        open_worker or (lambda task: task.open(inputs, run)),
        source or open_source(driver.job.data),
        writer or UnitWriter(run),
        EventLog(run.storage, "host:1"),
        "any",
    )


@dataclass(frozen=True)
class Given:
    """The units of one phase, which is one task here."""

    driver: Driver
    phase: str

    @property
    def task(self) -> Task:
        (task,) = self.driver.phase(self.phase).tasks
        return task

    @property
    def units(self) -> list[UnitSpec]:
        return [unit_under(unit, self.task.task_id) for unit in self.driver.plan.units]


@pytest.fixture(params=["certification", "attacks"])
def given(driver: Driver, request: pytest.FixtureRequest) -> Given:
    return Given(driver, request.param)


def no_commit(result: UnitResult) -> None:
    raise AssertionError("on this store sessions commit")


def committed(given: Given) -> list[tuple[str, str]]:
    """(unit id, pair id) of every committed row of the task, sorted."""
    from smoothcert.sql import Query
    from smoothcert.store import RunDirectory

    with Query([RunDirectory.open(given.driver.url)]) as query:
        table = query.sql(f"SELECT unit_id, pair_id FROM {given.task.table.name} ORDER BY 1, 2")
    return [tuple(row.values()) for row in table.to_pylist()]


def expected(given: Given, units: Sequence[UnitSpec] | None = None) -> list[tuple[str, str]]:
    """The same of these units, or of all."""
    source = open_source(given.driver.job.data)
    return sorted((unit.unit_id, pair.pair_id) for unit in units or given.units for pair in source.read(unit))


def test_units_submitted_together_end_with_their_own_pairs(given):
    open_session = session(given.driver)
    futures = {unit.unit_id: open_session.submit(unit) for unit in given.units}
    draws = []
    for unit_id, future in futures.items():
        result = future.result(60)
        assert (result.unit_id, result.done, result.commit.ok, result.commit.quarantined) == (
            unit_id,
            True,
            10,
            0,
        )
        assert result.commit.task == given.task.task_id
        draws.append(result.commit.draws)
    open_session.close()
    assert committed(given) == expected(given)
    assert open_session.progress().pairs == 40 and open_session.progress().draws == sum(draws)
    status = read_status(given.driver.url)
    assert [worker.alive for worker in status.workers] == [False]
    if given.phase == "certification":
        assert draws == [10 * (7 + 8)] * 4
        assert status.complete and status.units_done == 4
    else:
        # at least a clean image, a start, two steps and a verdict for each of ten pairs
        assert min(draws) >= 10 * 5
        assert status.units_done == 0, "none of these is certified"


def test_what_is_left_of_a_failed_attempt_is_not_taken_for_part_of_the_next(given):
    """Six pairs of the unit are on their way when its file fails; the unit is submitted again at once."""
    unit = given.units[0]
    open_session = session(
        given.driver, Shaky(open_source(given.driver.job.data), unit.unit_id, 1, 6, SourceError)
    )
    first = open_session.submit(unit)
    with pytest.raises(SourceError, match="hiccuped"):
        first.result(60)
    assert open_session.submit(unit).result(60).commit.ok == 10
    open_session.close()
    assert committed(given) == expected(given, [unit])


@pytest.mark.parametrize(("times", "missing"), [(2, 0), (3, 10)])
def test_the_local_executor_tries_a_unit_three_times_and_loses_no_other(given, times, missing):
    unit = given.units[2]
    source = Shaky(open_source(given.driver.job.data), unit.unit_id, times, 4, SourceError)
    report = LocalExecutor(lambda: session(given.driver, source), no_commit).run(
        given.units, Monitor(lambda result: None)
    )
    assert list(report.failed) == ([unit.unit_id] if missing else [])
    assert source.reads[unit.unit_id] == 3
    assert committed(given) == [row for row in expected(given) if not missing or row[0] != unit.unit_id]


def test_a_source_that_breaks_in_an_unforeseen_way_stops_the_session_and_says_so(driver):
    source = Shaky(open_source(driver.job.data), driver.plan.units[1].unit_id, 1, 4, ZeroDivisionError)
    open_session = session(driver, source)
    futures = [open_session.submit(unit) for unit in driver.plan.units]
    errors = [future.exception(60) for future in futures]
    assert any(isinstance(error, ZeroDivisionError) for error in errors) and errors[1] is not None
    assert isinstance(open_session.broken, ZeroDivisionError)
    with pytest.raises(ExecutorError, match="hiccuped"):
        open_session.submit(driver.plan.units[0])
    open_session.abandon()


def test_a_source_that_breaks_in_an_unforeseen_way_costs_an_attack_that_unit_alone(driver):
    given = Given(driver, "attacks")
    unit = given.units[1]
    open_session = session(driver, Shaky(open_source(driver.job.data), unit.unit_id, 1, 4, ZeroDivisionError))
    futures = [open_session.submit(unit) for unit in given.units]
    errors = [future.exception(60) for future in futures]
    assert [type(error) for error in errors] == [type(None), ZeroDivisionError, type(None), type(None)]
    assert open_session.broken is None and open_session.submit(unit).result(60).commit.ok == 10
    open_session.close()
    assert committed(given) == expected(given)


class FullStore:
    """Writes until it is full, and again when there is room."""

    def __init__(self, writer: UnitWriter, fails: int) -> None:
        self._writer, self.fails = writer, fails

    def write(self, *arguments: Any, **options: Any) -> Any:
        if self.fails:
            self.fails -= 1
            raise StoreError("no space left on device")
        return self._writer.write(*arguments, **options)


def test_a_unit_that_cannot_be_written_fails_and_the_others_do_not(given):
    open_session = session(given.driver, writer=FullStore(UnitWriter(given.driver.run), 1))
    futures = [open_session.submit(unit) for unit in given.units]
    errors = [future.exception(60) for future in futures]
    assert [type(error) for error in errors].count(StoreError) == 1
    failed = given.units[[error is not None for error in errors].index(True)]
    assert open_session.submit(failed).result(60).commit.ok == 10
    open_session.close()
    assert committed(given) == expected(given)


def test_a_store_that_stays_full_ends_the_run_instead_of_working_on_everything_for_nothing(given):
    driver = given.driver
    writer = FullStore(UnitWriter(driver.run), 10**9)
    with pytest.raises(StoreError, match="no space"):
        LocalExecutor(lambda: session(driver, writer=writer), no_commit).run(
            given.units, Monitor(lambda result: None)
        )
    attempts = 10**9 - writer.fails
    assert attempts <= 12, "no more than ten in a row, and what was in flight"
    assert committed(given) == []
    # a store that hiccups is another matter
    writer = FullStore(UnitWriter(driver.run), 4)
    report = LocalExecutor(lambda: session(driver, writer=writer), no_commit).run(
        given.units, Monitor(lambda result: None)
    )
    assert not report.failed and committed(given) == expected(given)


def test_an_abandoned_session_keeps_what_was_committed_and_drops_the_rest(given):
    endless = threading.Event()
    driver, second = given.driver, given.units[1].unit_id

    class Waiting:
        def __init__(self, source: Any) -> None:
            self._source = source

        def read(self, unit: Any, only: Any = None) -> Iterator[Pair]:
            for number, pair in enumerate(self._source.read(unit, only)):
                if unit.unit_id == second and number == 5:
                    endless.wait(60)
                yield pair

    open_session = session(driver, Waiting(open_source(driver.job.data)))
    one, two = (open_session.submit(unit) for unit in given.units[:2])
    assert one.result(60).done
    open_session.abandon()
    assert isinstance(two.exception(10), ExecutorError)
    endless.set()
    assert committed(given) == expected(given, given.units[:1])
    # the next session of the same run does what is left
    report = Driver(driver.job, ENCODER).work(given.phase, Monitor(lambda result: None))
    assert (report.resumed, report.done) == (10, 40)
    assert committed(given) == expected(given)


def test_two_sessions_on_one_unit_leave_one_set_of_rows(given):
    """A copy of a slow unit, or a second driver: whoever is first commits."""
    sessions = [session(given.driver), session(given.driver)]
    futures = [one.submit(unit) for unit in given.units for one in sessions]
    assert all(future.result(60).done for future in futures)
    for one in sessions:
        one.close()
    assert committed(given) == expected(given)


# --- two tasks in one session -------------------------------------------------------------------------------


def test_units_of_two_tasks_take_turns_in_one_session(driver):
    certification, attacks = Given(driver, "certification"), Given(driver, "attacks")
    opened: list[str] = []
    inputs = Inputs(driver.job, ENCODER)

    def open_worker(task: Task) -> Worker:
        opened.append(task.task_id)
        return task.open(inputs, driver.run)

    open_session = session(driver, open_worker=open_worker)
    turns = [unit for both in zip(certification.units, attacks.units, strict=True) for unit in both]
    results = [future.result(60) for future in [open_session.submit(unit) for unit in turns]]
    assert [(result.unit_id, result.commit.task, result.commit.ok) for result in results] == [
        (unit.unit_id, task_of(unit.unit_id), 10) for unit in turns
    ]
    assert sum(result.commit.draws for result in results) == open_session.progress().draws
    assert open_session.progress().pairs == 2 * 40
    open_session.close()
    assert opened == ["", attacks.task.task_id], "each worker is opened once, when its first unit comes"
    assert committed(certification) == expected(certification)
    assert committed(attacks) == expected(attacks)
    status = read_status(driver.url)
    assert status.complete and status.units_done == 4, "units of attacks are none of the plan"


def test_a_unit_of_an_unknown_task_is_refused_and_the_session_goes_on(driver):
    given = Given(driver, "certification")
    open_session = session(driver)
    with pytest.raises(ExecutorError, match="of a task that the job does not have"):
        open_session.submit(unit_under(given.units[0], "0123abcd"))
    assert open_session.broken is None
    assert open_session.submit(given.units[0]).result(60).commit.ok == 10
    open_session.close()
    assert committed(given) == expected(given, given.units[:1])


def test_a_task_that_cannot_be_opened_costs_its_units_and_no_others(driver):
    certification, attacks = Given(driver, "certification"), Given(driver, "attacks")
    broken, inputs = [True], Inputs(driver.job, ENCODER)

    def open_worker(task: Task) -> Worker:
        if task.task_id and broken:
            raise EncoderError("the surrogate is away")
        return task.open(inputs, driver.run)

    open_session = session(driver, open_worker=open_worker)
    units = [attacks.units[0], certification.units[0], attacks.units[1]]
    one, two, three = (open_session.submit(unit) for unit in units)
    for lost in (one, three):
        with pytest.raises(EncoderError, match="surrogate is away"):
            lost.result(60)
    assert two.result(60).commit.ok == 10
    broken.clear()
    assert open_session.submit(attacks.units[0]).result(60).commit.ok == 10
    open_session.close()
    assert committed(attacks) == expected(attacks, attacks.units[:1])
    assert committed(certification) == expected(certification, certification.units[:1])


def test_an_attack_that_fails_on_every_pair_fails_its_unit_and_the_session_goes_on(driver, monkeypatch):
    given = Given(driver, "attacks")

    def search(self: PGD, campaign: Any) -> None:
        raise RuntimeError("a bug")

    open_session = session(driver)
    # pairs that were certified cannot all be to blame
    for unit in driver.plan.units:
        assert open_session.submit(unit).result(60).commit.ok == 10
    with monkeypatch.context() as patch:
        patch.setattr(PGD, "search", search)
        with pytest.raises(RuntimeError, match="a bug"):
            open_session.submit(given.units[0]).result(60)
    assert open_session.broken is None and committed(given) == []
    futures = [open_session.submit(unit) for unit in given.units]
    assert [future.result(60).commit.ok for future in futures] == [10] * 4
    open_session.close()
    assert committed(given) == expected(given)


def test_other_weights_than_the_run_was_planned_with_are_refused(driver):
    opening = Opening(driver.job, driver.run.url, "0" * 64, ())
    with pytest.raises(RunDirectoryError, match="0000000000000000"):
        opening.with_encoder(ENCODER)


def test_draws_and_units_of_a_plan(driver):
    plan = driver.plan
    assert (plan.pairs, len(plan.files), len(plan.units)) == (40, 2, 4)
    assert plan.draws(driver.job) == 40 * 15
    covered = Counter((unit.source_uri, i) for unit in plan.units for i in range(unit.start, unit.stop))
    assert len(covered) == 40 and set(covered.values()) == {1}


@pytest.mark.parametrize(
    ("pairs", "draws", "size"), [(3, 1000, 1), (8, 1000, 1), (360, 500, 45), (10**6, 936, 250)]
)
def test_units_are_sized_by_draws_but_small_inputs_are_shared_out(pairs, draws, size):
    from smoothcert.runtime.plan import pairs_per_unit

    job = parse_job(JOB.format(data="x", runs="y"), [f"certify.max_draws={draws}", "certify.pilot_draws=64"])
    assert pairs_per_unit(job, pairs) == size
    assert size * (draws + 64) <= 250_000 or size == 1


def test_a_pool_does_not_depend_on_the_order_of_reading_or_on_doubles():
    from smoothcert.job import RetrievalSection
    from smoothcert.work.certify.pool import draw_pool

    class Captions:
        def __init__(self, captions: list[str]) -> None:
            self._captions = captions

        def captions(self) -> Iterator[tuple[str, tuple[str, ...]]]:
            yield from ((str(i), (text, "common")) for i, text in enumerate(self._captions))

    section = RetrievalSection(candidates=50, k=1)
    texts = [f"text {i}" for i in range(1000)]
    shuffled = list(np.random.default_rng(0).permutation(texts)) * 2
    pool = draw_pool(Captions(texts), section, 3)
    assert pool == draw_pool(Captions(shuffled), section, 3) and len(set(pool)) == 50
    assert pool != draw_pool(Captions(texts), section, 4)
    # a fair draw: all of 1001 texts have the same chance, seen over 400 seeds (false failure below 1e-6)
    counts = Counter(text for seed in range(400) for text in draw_pool(Captions(texts[:99]), section, seed))
    assert len(counts) == 100 and all(abs(count - 200) < 10 * 5.6 for count in counts.values())
