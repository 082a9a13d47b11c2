"""One worker's attack units: pairs in, judged and committed rows out. The same under every executor.

submit(unit) -> read -> decode -> attack a batch of pairs -> judge on fresh draws -> join certificates -> commit
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import cached_property
from itertools import islice

import torch

from smoothcert.datasets import Pair, Source, UnitSpec
from smoothcert.errors import EncodeError, ExecutorError, OutOfMemoryError, PairError, SmoothcertError
from smoothcert.job import Job
from smoothcert.runtime.results import UnitResult, worker_name
from smoothcert.runtime.session import Progress
from smoothcert.store import ATTACKS, Commit, RunDirectory, new_attempt, rows_to_table
from smoothcert.store.events import EventLog
from smoothcert.store.parts import write_part
from smoothcert.store.retry_unit import RetryUnit, only, supersedes
from smoothcert.store.units import attack_id_of
from smoothcert.work.attack.attacker import Attacker, Outcome
from smoothcert.work.attack.certified import CertificateReader, Claims
from smoothcert.work.attack.examples import ExampleShelf
from smoothcert.work.attack.goal import ReadyPair
from smoothcert.work.attack.inputs import AttackInputs
from smoothcert.work.attack.metered import Meter
from smoothcert.work.attack.rows import AttackRow, AttackRowMaker

log = logging.getLogger(__name__)

PAIRS_AT_ONCE = 64
"""Pairs attacked together: enough to fill a device, few enough to hold in memory with their draws."""

_Result = tuple[str, float, tuple[Outcome, ...]]


class AttackSession:
    """Attacks units on this process's device, one after the other.

    Args:
        job: what to do.
        run: where the certificates are and the rows go.
        source: where pairs come from.
        inputs: encoders, texts and targets of the attacks.
        events: this worker's telemetry.
    """

    def __init__(
        self, job: Job, run: RunDirectory, source: Source, inputs: AttackInputs, events: EventLog
    ) -> None:
        self._job = job
        self._run = run
        self._source = source
        self._inputs = inputs
        self._events = events
        self._meter = Meter()
        self._shelf = ExampleShelf(run.storage)
        self._sections = {section.attack_id: section for section in job.attacks}
        self._makers: dict[str, tuple[Attacker, AttackRowMaker]] = {}
        self._units: queue.SimpleQueue[tuple[UnitSpec, Future[UnitResult]] | None] = queue.SimpleQueue()
        self._pairs = 0
        self._quarantined = 0
        self._units_done = 0
        self._current: list[str] = []
        self._thread = threading.Thread(target=self._work, name="attack", daemon=True)
        self._thread.start()

    def submit(self, unit: UnitSpec) -> Future[UnitResult]:
        """Queue a unit; the future ends with its committed result, or with what made it fail."""
        future: Future[UnitResult] = Future()
        self._units.put((unit, future))
        return future

    @property
    def broken(self) -> BaseException | None:
        """A unit that fails leaves this session usable."""
        return None

    def progress(self) -> Progress:
        """Images put through the encoder (as draws) and pairs of units that are done; also a line in the event log."""
        self._say("progress", pairs=self._pairs, quarantined=self._quarantined)
        return Progress(self._meter.images, self._pairs, self._quarantined)

    def close(self) -> None:
        """Finish what was submitted, then stop."""
        self._units.put(None)
        self._thread.join()
        self._say("end", now=True)
        self._events.close()

    def abandon(self) -> None:
        """Stop at the next query: what is not committed is dropped."""
        self._meter.stop()
        self._units.put(None)
        self._say("end", now=True)
        self._events.close()

    def _say(self, event: str, *, now: bool = False, **fields: object) -> None:
        self._events.say(
            event,
            now=now,
            units=list(self._current),
            draws=self._meter.images,
            units_done=self._units_done,
            **fields,
        )

    def _work(self) -> None:
        while (item := self._units.get()) is not None:
            unit, future = item
            self._current = [unit.unit_id]
            self._say("start", unit=unit.unit_id)
            try:
                result = self._attack(unit)
            except BaseException as exc:
                self._shelf.forget()
                log.error("unit %s failed: %s", unit.unit_id, exc)
                self._say("error", unit=unit.unit_id, message=f"{type(exc).__name__}: {exc}")
                future.set_exception(exc)
            else:
                self._units_done += 1
                future.set_result(result)
                self._say("commit", unit=unit.unit_id)
            self._current = []

    def _attack(self, unit: UnitSpec) -> UnitResult:
        started = time.monotonic()
        attempt = new_attempt()
        rows: list[AttackRow] = []
        pairs = self._source.read(unit, only(unit))
        while batch := list(islice(pairs, PAIRS_AT_ONCE)):
            rows.extend(self._attack_batch(unit, batch))
        self._shelf.write(unit.unit_id, attempt)
        return write_attack_rows(self._run, unit, attempt, rows, time.monotonic() - started)

    def _attack_batch(self, unit: UnitSpec, pairs: Sequence[Pair]) -> list[AttackRow]:
        unit_id = unit.unit_id
        attacker, maker = self._maker(attack_id_of(unit_id))
        ready: list[ReadyPair] = []
        rows: list[AttackRow] = []
        failed: list[tuple[Pair, PairError]] = []
        for pair in pairs:
            try:
                ready.append(attacker.ready(pair))
            except PairError as exc:
                failed.append((pair, exc))
        place = unit.origin if isinstance(unit, RetryUnit) else unit_id
        claims = self._certificates.claims(place, [each.pair.pair_id for each in ready])
        for group, result in self._results(attacker, ready, claims, failed):
            for subject, budget, outcomes in result:
                for each, outcome in zip(group, outcomes, strict=True):
                    pair_id = each.pair.pair_id
                    row = maker.row(unit_id, each.pair, subject, budget, outcome, claims.get(pair_id))
                    rows.append(row)
                    if row.status == "ok":
                        image = outcome.image.cpu().numpy()
                        self._shelf.offer(
                            attacker.section,
                            subject,
                            budget,
                            pair_id,
                            outcome.score.margin,
                            each.pixels,
                            image,
                        )
        for pair, error in failed:
            rows.extend(maker.quarantined(unit_id, pair, error))
        self._pairs += len(pairs)
        self._quarantined += len(failed)
        return rows

    def _results(
        self,
        attacker: Attacker,
        ready: list[ReadyPair],
        claims: Mapping[str, Claims],
        failed: list[tuple[Pair, PairError]],
    ) -> Iterator[tuple[list[ReadyPair], list[_Result]]]:
        """Outcomes of a batch, or of its pairs one by one where the batch as a whole fails.

        Raises:
            Exception: what is raised on every pair alike: the attack is at fault, and the unit fails.
        """
        if not ready:
            return
        try:
            yield ready, list(attacker.run(ready, claims))
            return
        except SmoothcertError:
            raise  # a wrong job or encoder, or the order to stop: no pair's fault
        except Exception as exc:
            log.warning("an attack failed on a batch (%s: %s); trying pair by pair", type(exc).__name__, exc)
        causes: list[Exception] = []
        for each in ready:
            try:
                result = list(attacker.run([each], claims))
            except SmoothcertError:
                raise
            except torch.OutOfMemoryError as exc:
                failed.append((each.pair, OutOfMemoryError(f"out of memory on this pair alone: {exc}")))
            except Exception as exc:
                causes.append(exc)
                failed.append((each.pair, EncodeError(f"{type(exc).__name__} under attack: {exc}")))
            else:
                yield [each], result
        if _no_pairs_fault(causes, [each.pair.pair_id in claims for each in ready]):
            raise causes[0]

    def _maker(self, attack_id: str) -> tuple[Attacker, AttackRowMaker]:
        if attack_id not in self._sections:
            raise ExecutorError(f"the job has no attack '{attack_id}'", remedy="use one job on all workers")
        if attack_id not in self._makers:
            attacker = Attacker(self._job, self._sections[attack_id], self._inputs, self._meter)
            self._makers[attack_id] = (attacker, AttackRowMaker(self._job, attacker, self._inputs.certified))
        return self._makers[attack_id]

    @cached_property
    def _certificates(self) -> CertificateReader:
        return CertificateReader(self._run)


def _no_pairs_fault(causes: Sequence[Exception], certified: Sequence[bool]) -> bool:
    """Whether several pairs, all of them certified by the same encoder, failed one by one and in the same way.

    A pair alone is quarantined, and so is what a surrogate gave no number for.
    """
    if not 1 < len(causes) == len(certified) or not all(certified):
        return False
    return len({type(cause) for cause in causes}) == 1 and not isinstance(causes[0], FloatingPointError)


def write_attack_rows(
    run: RunDirectory, unit: UnitSpec, attempt: str, rows: Sequence[AttackRow], seconds: float
) -> UnitResult:
    """Write and verify the part of an attack unit, then commit it where this process may.

    The commit counts no rows and no draws: these counts are certification's.

    Raises:
        StoreError: writing failed; nothing of this attempt counts.
    """
    table = rows_to_table(rows, ATTACKS, run_id=run.run_id, attempt=attempt)
    part = write_part(run.storage, ATTACKS, unit.unit_id, attempt, table)
    commit = Commit(
        unit_id=unit.unit_id,
        attempt=attempt,
        parts=(part,),
        seconds=seconds,
        worker=worker_name(),
        supersedes=supersedes(unit),
    )
    if not run.commits.may_commit:
        return UnitResult(unit.unit_id, commit, done=False)
    run.commits.commit(commit)  # False: another attempt was first, and its rows count
    return UnitResult(unit.unit_id, commit, done=True)
