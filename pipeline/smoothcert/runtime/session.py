"""One worker's whole life: units in, committed rows out. The same under every executor.

    submit(unit) -> read -> decode (threads) -> engine (this device, never idle) -> rows -> part -> commit

Three threads beside the decoders: the reader walks through the submitted units, the engine thread owns the
device, the finisher computes certificates and writes. Units overlap: while the last pairs of one are drawing,
the first of the next are already in slots.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Protocol

from smoothcert.datasets import Pair, Source, UnitSpec
from smoothcert.encoders import Encoder
from smoothcert.engine import CertificateRow, DecodeAhead, Engine, Measurement, Outcome, RowMaker, Texts
from smoothcert.errors import ExecutorError, SmoothcertError
from smoothcert.job import Job
from smoothcert.runtime.events import EventLog
from smoothcert.runtime.results import UnitResult, UnitWriter
from smoothcert.runtime.retry_unit import only, supersedes

log = logging.getLogger(__name__)

_ROWS_AT_ONCE = 256
"""Measurements whose certificates are computed together: many share the cost of a step of numerics."""
_SCORES_AT_ONCE = 4_000_000
"""Numbers that may wait to be computed together (32 MB): bounds what the finisher holds for long sequences of draws."""


@dataclass
class _OpenUnit:
    """One submission of a unit, up to its commit.

    Pairs in flight carry the submission's token, not the unit's name: what is left of a failed attempt can never be
    taken for part of the next one.
    """

    token: str
    unit: UnitSpec
    only: frozenset[str] | None
    future: Future[UnitResult]
    expected: int
    started: float = field(default_factory=time.monotonic)
    waiting: list[Outcome] = field(default_factory=list)
    scores: int = 0
    rows: list[CertificateRow] = field(default_factory=list)


@dataclass(frozen=True)
class Progress:
    """Counters of one session, for progress lines and status."""

    draws: int
    pairs: int
    quarantined: int


class Session(Protocol):
    """What executors ask of a worker's session, whatever its units are about."""

    def submit(self, unit: UnitSpec) -> Future[UnitResult]:
        """Queue a unit; the future ends with its committed result, or with what made it fail."""

    @property
    def broken(self) -> BaseException | None:
        """What stopped this session; nothing that is submitted from then on is done."""

    def progress(self) -> Progress:
        """What was done so far; whatever changes is a sign of life."""

    def close(self) -> None:
        """Finish what was submitted, then stop."""

    def abandon(self) -> None:
        """Stop without finishing: what is not committed is dropped."""


class WorkerSession:
    """Certifies units on this process's device.

    Args:
        job: what to do.
        source: where pairs come from.
        encoder: the base encoder, loaded.
        texts: class, pool and caption references.
        writer: writes and commits a unit's rows.
        events: this worker's telemetry.
    """

    def __init__(
        self,
        job: Job,
        source: Source,
        encoder: Encoder,
        texts: Texts,
        writer: UnitWriter,
        events: EventLog,
    ) -> None:
        self._source = source
        self._writer = writer
        self._events = events
        section = job.encoder
        self._engine = Engine(
            encoder,
            job.certify,
            texts,
            slots=section.slots,
            chunk=section.chunk,
            threads=section.threads,
        )
        self._rows = RowMaker(encoder, job.certify, texts, self._engine.layout)
        self._units: queue.SimpleQueue[_OpenUnit | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
        self._open: dict[str, _OpenUnit] = {}
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._submissions = 0
        self._pairs = 0
        self._quarantined = 0
        self._units_done = 0
        self._feed = DecodeAhead(
            self._read(),
            encoder,
            threads=job.executor.decode_threads,
            depth=2 * section.slots,
            max_pixels=job.data.max_pixels,
        )
        self._threads = [
            threading.Thread(target=self._drive_engine, name="engine", daemon=True),
            threading.Thread(target=self._finish, name="finish", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, unit: UnitSpec) -> Future[UnitResult]:
        """Queue a unit; the future ends with its committed result, or with what made it fail."""
        future: Future[UnitResult] = Future()
        with self._lock:
            if self._error is not None:
                raise ExecutorError(f"this worker has stopped: {self._error}") from self._error
            self._submissions += 1
            held = _OpenUnit(f"{unit.unit_id}@{self._submissions}", unit, only(unit), future, len(unit))
            self._open[held.token] = held
        self._units.put(held)
        self._say("start", unit=unit.unit_id)
        return future

    @property
    def broken(self) -> BaseException | None:
        """What stopped this session; nothing that is submitted from then on is done."""
        return self._error

    def progress(self) -> Progress:
        """What was done so far, including units that are not committed yet; also a line in the event log."""
        self._say("progress", pairs=self._pairs, quarantined=self._quarantined)
        return Progress(self._engine.draws_done, self._pairs, self._quarantined)

    def close(self) -> None:
        """Finish what was submitted, then stop the threads."""
        self._units.put(None)
        for thread in self._threads:
            thread.join()
        self._feed.close()
        self._engine.close()
        if (said := self._engine.captions.describe_cut()) is not None:
            log.warning("%s", said)
            self._say("note", message=said)
        self._say("end", now=True)
        self._events.close()

    def abandon(self) -> None:
        """Stop without finishing: what is not committed is dropped."""
        self._stop(ExecutorError("the worker was told to stop"))
        self._units.put(None)
        self._feed.close()
        self._engine.close()
        self._say("end", now=True)
        self._events.close()

    def _say(self, event: str, *, now: bool = False, **fields: object) -> None:
        self._events.say(
            event,
            now=now,
            units=[held.unit.unit_id for held in list(self._open.values())],
            draws=self._engine.draws_done,
            units_done=self._units_done,
            **fields,
        )

    def _read(self) -> Iterator[tuple[str, Pair]]:
        while (held := self._units.get()) is not None:
            try:
                for pair in self._source.read(held.unit, held.only):
                    yield held.token, pair
            except SmoothcertError as exc:
                # the unit's file is gone or unreadable as a whole; the other units go on
                self._give_up(held, exc)

    def _drive_engine(self) -> None:
        try:
            for outcome in self._engine.run(self._feed):
                self._outcomes.put(outcome)
        except BaseException as exc:
            self._stop(exc)
        finally:
            self._outcomes.put(None)

    def _finish(self) -> None:
        while (outcome := self._outcomes.get()) is not None:
            held = self._open.get(outcome.unit_id)
            if held is None:
                continue  # what is left of a submission that was given up
            held.waiting.append(replace(outcome, unit_id=held.unit.unit_id))
            if isinstance(outcome, Measurement):
                held.scores += outcome.scores.size
            done = len(held.rows) + len(held.waiting) == held.expected
            if not done and len(held.waiting) < _ROWS_AT_ONCE and held.scores < _SCORES_AT_ONCE:
                continue
            try:
                self._advance(held, done)
            except BaseException as exc:
                self._give_up(held, exc)

    def _advance(self, held: _OpenUnit, done: bool) -> None:
        """Certify what waits; with the last pairs, write and commit the unit."""
        rows = self._rows.rows(held.waiting)
        held.waiting.clear()
        held.scores = 0
        held.rows.extend(rows)
        self._pairs += len(rows)
        self._quarantined += sum(row.status != "ok" for row in rows)
        if not done:
            return
        result = self._writer.write(
            held.unit.unit_id, held.rows, time.monotonic() - held.started, supersedes(held.unit)
        )
        with self._lock:
            if self._open.pop(held.token, None) is None:
                return  # stopped in the meantime; if the commit counted, the next driver finds it
        self._units_done += 1
        self._say("commit", unit=held.unit.unit_id, rows=len(held.rows))
        held.future.set_result(result)

    def _give_up(self, held: _OpenUnit, error: BaseException) -> None:
        with self._lock:
            if self._open.pop(held.token, None) is None:
                return
        log.error("unit %s failed: %s", held.unit.unit_id, error)
        self._say("error", unit=held.unit.unit_id, message=f"{type(error).__name__}: {error}")
        held.future.set_exception(error)

    def _stop(self, error: BaseException) -> None:
        with self._lock:
            self._error = error
            stopped, self._open = list(self._open.values()), {}
        for held in stopped:
            held.future.set_exception(error)
