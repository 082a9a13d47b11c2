"""From certified pairs to attacked ones, in the same run directory and under the same executors."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType

from smoothcert.datasets import UnitSpec, open_source
from smoothcert.encoders import Encoder
from smoothcert.errors import JobError, PairError
from smoothcert.job import Job
from smoothcert.runtime.attack_retry import both, of_attacks, stale_attacks
from smoothcert.runtime.attack_session import AttackSession, write_attack_rows
from smoothcert.runtime.driver import Driver
from smoothcert.runtime.driver_log import driver_log
from smoothcert.runtime.executor import Executor, ExecutorReport, LocalExecutor, Monitor
from smoothcert.runtime.opening import Opening
from smoothcert.runtime.results import UnitResult, worker_name
from smoothcert.runtime.retry import left, retry_units
from smoothcert.store import Committed, RunDirectory, new_attempt
from smoothcert.store.events import EventLog
from smoothcert.store.retry_unit import RetryUnit, only
from smoothcert.store.units import attack_id_of, pending_attacks
from smoothcert.work.attack.asked import note_asked
from smoothcert.work.attack.attacker import Attacker, check_attacks
from smoothcert.work.attack.examples import publish_examples
from smoothcert.work.attack.inputs import AttackInputs, with_contents
from smoothcert.work.attack.metered import Meter
from smoothcert.work.attack.rows import AttackRow, AttackRowMaker
from smoothcert.work.inputs import loadable_here, texts_of

_NOTHING: Mapping[str, tuple[str, ...]] = MappingProxyType({})


@dataclass(frozen=True)
class AttackOpening:
    """Opens an attack session; small and picklable.

    Attributes:
        certify: the same for certification: job, run, and the encoder that both must use.
    """

    certify: Opening

    def __call__(self) -> AttackSession:
        """The session, with its own encoder."""
        return self.with_encoder(self.certify.load())

    def with_encoder(self, encoder: Encoder) -> AttackSession:
        """The session, with an encoder that is loaded already.

        Raises:
            RunDirectoryError: the encoder here is not the one that the run was planned with.
        """
        self.certify.refuse_another(encoder)
        job = self.certify.job
        run = RunDirectory.open(self.certify.run_url, exclusive=self.certify.exclusive)
        inputs = AttackInputs(job, encoder, texts_of(job, encoder, self.certify.pool))
        return AttackSession(job, run, open_source(job.data), inputs, EventLog(run.storage, worker_name()))


@dataclass(frozen=True)
class AttackReport:
    """How the attacks of a session went.

    Attributes:
        units: attack units of the job.
        missing: units that are not done.
        failed: units given up in this session, with the reason.
        stopped: the session was told to stop.
        seconds: of this session.
        resumed: units that were committed before this session.
        examples: stored examples.
        examples_wanted: how many the attacks' ``keep`` asks for, of the pairs that have an outcome.
    """

    units: int
    missing: int
    failed: dict[str, str]
    stopped: bool
    seconds: float
    resumed: int
    examples: int
    examples_wanted: int


class AttackDriver:
    """The attacks of one job, after its certification.

    Args:
        driver: of the certification; the run directory is shared.

    Raises:
        JobError: the job has no attacks.
    """

    def __init__(self, driver: Driver) -> None:
        if not driver.job.attacks:
            raise JobError(
                "the job has no section 'attacks'",
                remedy="add e.g. attacks: [{attack: pgd, norm: l2, budgets: [0.25]}]",
            )
        self._driver = driver
        self._asked = driver.job

    @cached_property
    def inputs(self) -> AttackInputs:
        """Encoders, texts and targets of the attacks."""
        driver = self._driver
        # a pool is drawn here, not read, so that nothing is created before the job is known to be right
        return AttackInputs(
            self._asked,
            driver.encoder,
            texts_of(self._asked, driver.encoder, driver.draw_pool()),
            lambda section: loadable_here(section, self._asked.executor),
        )

    @cached_property
    def job(self) -> Job:
        """The job, with the contents of all its attacks filled in."""
        return with_contents(self._asked, self.inputs)

    def check(self) -> None:
        """Everything that can be wrong with the attacks shows here, before any draw.

        Raises:
            JobError: an attack cannot do what the job asks on this source.
            EncoderError: the encoder lacks gradients (or patch features) that an attack needs.
        """
        check_attacks(self.job, self.inputs, self._driver.source, self._driver.plan.units)

    @property
    def draws_per_pair(self) -> int:
        """A rough number of images a pair and attack, for the first estimate of the time left."""
        most = 0
        for section in self.job.attacks:
            each = sum(
                (section.steps or 100) * (1 if name == "bare" else section.eot_draws)
                + 2 * section.evaluate_draws
                for name in section.subjects
            )
            most = max(most, each * len(section.budgets))
        return most

    def pairs_done(self, again: Mapping[str, tuple[str, ...]] = _NOTHING) -> int:
        """Pairs whose attack is committed and not to be made again, each counted once for every attack of the job."""
        run = self._driver.run
        todo = sum(len(unit) for unit in self._left(run.commits.load(), again))
        return run.info.pairs * len(self.job.attacks) - todo

    def run(self, monitor: Monitor, again: Mapping[str, tuple[str, ...]] = _NOTHING) -> AttackReport:
        """Run what is not committed yet or stale, then keep the strongest examples.

        Args:
            monitor: what is told of it.
            again: pairs to attack again, by the unit whose rows show them (``attack_retry.choose_attacks``); those that
                were replaced already, or belong to attacks that the job does not have, are left out.

        Raises:
            SmoothcertError: what makes further work pointless; committed units are kept.
        """
        run = self._driver.run
        with run.committing(), driver_log(run, monitor) as told:
            return self._run(told, again)

    def _run(self, monitor: Monitor, again: Mapping[str, tuple[str, ...]]) -> AttackReport:
        started = time.monotonic()
        run = self._driver.run
        note_asked(run, self.job.attacks)
        before = run.commits.resume()
        todo = len(self._left(before, again))
        report, state = ExecutorReport(), before
        while not report.stopped:
            pending = [unit for unit in self._left(state, again) if unit.unit_id not in report.failed]
            if not pending:
                break
            found = len(state)
            report = report.and_then(self._executor().run(iter(pending), monitor))
            state = run.commits.load()
            if len(state) == found:
                break
            # another driver may have split units that are ours too: then their parts are left
        missing = len(self._left(state, again))
        examples = wanted = 0
        if not report.stopped:
            for section in self.job.attacks:
                stored, asked = publish_examples(run, section)
                examples, wanted = examples + stored, wanted + asked
        ids = {section.attack_id for section in self.job.attacks}
        done = sum(attack_id_of(unit) in ids for unit in before.unit_ids - set(before.split_units))
        return AttackReport(
            units=done + todo,
            missing=missing,
            failed={unit: str(error) for unit, error in report.failed.items()},
            stopped=report.stopped,
            seconds=time.monotonic() - started,
            resumed=done,
            examples=examples,
            examples_wanted=wanted,
        )

    def _left(self, committed: Committed, again: Mapping[str, tuple[str, ...]]) -> list[UnitSpec]:
        run, attacks = self._driver.run, self.job.attacks
        chosen = of_attacks(both(stale_attacks(run, committed), again), attacks)
        retries = left(retry_units(run, chosen, committed), committed)
        return [*pending_attacks(run, attacks, committed), *retries]

    def _executor(self) -> Executor:
        driver, section = self._driver, self.job.executor
        opening = AttackOpening(replace(driver.opening(), job=self.job))
        duties = _Duties(driver, self.job, self.inputs)
        if section.kind == "local":
            return LocalExecutor(
                lambda: opening.with_encoder(driver.encoder),
                duties.commit,
                in_flight=section.units_in_flight,
                grace_s=section.grace_s,
            )
        from smoothcert.runtime.ray_cluster import uses_gpu
        from smoothcert.runtime.ray_executor import RayExecutor

        return RayExecutor(opening, section, duties, uses_gpu=uses_gpu(self.job.encoder))


class _Duties:
    """The driver's part in the store while an executor attacks."""

    def __init__(self, driver: Driver, job: Job, inputs: AttackInputs) -> None:
        self._driver = driver
        self._job = job
        self._inputs = inputs
        self._run = driver.run

    def commit(self, result: UnitResult) -> None:
        self._run.commits.commit(result.commit)

    def split(self, unit: UnitSpec, parts: tuple[UnitSpec, ...]) -> bool:
        if isinstance(unit, RetryUnit):
            return unit.unit_id not in self._run.commits.unit_ids()
        return self._run.commits.split(unit.unit_id, parts, worker="driver")

    def convict(self, unit: UnitSpec, error: PairError) -> UnitResult:
        job, inputs = self._job, self._inputs
        section = next(each for each in job.attacks if each.attack_id == attack_id_of(unit.unit_id))
        maker = AttackRowMaker(job, Attacker(job, section, inputs, Meter()), inputs.certified)
        pairs = self._driver.source.read(unit, only(unit))
        rows: list[AttackRow] = list(
            itertools.chain.from_iterable(maker.quarantined(unit.unit_id, pair, error) for pair in pairs)
        )
        result = write_attack_rows(self._run, unit, new_attempt(), rows, 0.0)
        if not result.done:
            self.commit(result)
        return result
