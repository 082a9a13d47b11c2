"""One study to its end: everything checked, then every run by the one driver, the leaderboard and MLflow kept current.

A study has no state of its own that could be lost: killed at any moment, the same command finds every run by its
fingerprint, goes on where it stood, and does nothing for those that are done.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from smoothcert.audit.kept import rests_on
from smoothcert.encoders import Encoder, load_encoder
from smoothcert.errors import JobError, SmoothcertError
from smoothcert.job import Combination, EncoderSection, Study
from smoothcert.runtime.driver import Driver
from smoothcert.sql import Query
from smoothcert.store import RunDirectory
from smoothcert.studies.at_once import MOST_AT_ONCE, Lanes, shared_cluster
from smoothcert.studies.leaderboard import Leaderboard, make_leaderboard
from smoothcert.studies.record import (
    COMPLETE,
    LEADERBOARD_FILE,
    STOPPED,
    StudyRecord,
    StudyRun,
    earlier_record,
    study_directory,
)
from smoothcert.studies.tables import from_csv, to_csv
from smoothcert.work.inputs import load_checked, loadable_here

FINISHED = (0, 1, 6)
"""Exit codes of a run whose every pair has its rows; 1 and 6 say that something is wrong with what they hold."""
Look = Callable[[Mapping[str, RunDirectory], str, Query], None]
"""Takes the runs by label, the digest of what their leaderboard rests on, and an open query with all of them."""
_STATES = {1: "the audit found something", 6: "over its quarantine budget"}


@dataclass(frozen=True)
class StudyReport:
    """How a study went in this session.

    Attributes:
        record: which runs there are, and how far each is.
        board: figures of the runs that are there; None where there is none.
        code: the worst exit code of a run, 0 where all are complete.
        stopped: the session was told to stop.
    """

    record: StudyRecord
    board: Leaderboard | None
    code: int
    stopped: bool


class Encoders:
    """The encoder that was loaded last, without its defence: combinations that share it follow each other."""

    def __init__(self) -> None:
        self._held: tuple[EncoderSection, Encoder] | None = None

    def driver(self, combination: Combination) -> Driver:
        """A driver of the combination, its encoder loaded."""
        job = combination.job
        section = loadable_here(job.encoder, job.executor)
        bare = section.model_copy(update={"purifier": None, "mapper": None})
        if self._held is None or self._held[0] != bare:
            self._held = None  # two encoders need not fit into memory
            self._held = (bare, load_encoder(bare))
        # the defence may depend on sigma, so that the same section can mean another encoder
        encoder = load_checked(job.model_copy(update={"encoder": section}), self._held[1])
        return Driver(job, encoder)


class StudyDriver:
    """The runs of a study: one after the other, or on a Ray cluster several at once.

    Args:
        study: the study.

    Attributes:
        study: as given.
        record: which runs there are; after ``check``.
        several: whether runs go on beside each other in this session.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self._encoders = Encoders()
        self._storage = study_directory(study.combinations[0].job.output.runs, study.name)
        self._lock = threading.RLock()
        self.record = StudyRecord(study.name, study.baseline, ())
        self.several = False

    @property
    def url(self) -> str:
        """Where record and leaderboard are kept."""
        return self._storage.url

    def check(self) -> None:
        """Find out everything that can be wrong with any combination before any of them begins.

        Runs that were complete, and whose rows, asked work and code are as they were, are complete now.

        Raises:
            JobError: a combination cannot be done, or two of them are one run; errors name it.
            SmoothcertError: data or an encoder cannot be used.
        """
        earlier = earlier_record(self._storage)
        known = {run.url: run for run in earlier.runs} if earlier is not None else {}
        urls: dict[str, str] = {}
        runs = []
        for each in self.study.combinations:
            with _naming(each):
                driver = self._encoders.driver(each)
                driver.check()
                other = urls.setdefault(driver.url, each.label)
                if other != each.label:
                    raise JobError(
                        f"study: '{other}' and '{each.label}' are one run: they differ in names, not in content",
                        remedy="keep one of them, or give each its own weights",
                    )
                before = known.get(driver.url)
                done = before is not None and before.state == COMPLETE and _is_done(driver, before.rests_on)
            runs.append(
                StudyRun(each.label, driver.url, COMPLETE, before.rests_on)
                if before is not None and done
                else StudyRun(each.label, driver.url)
            )
        board = earlier.leaderboard if earlier is not None else ""
        self.record = StudyRecord(self.study.name, self.study.baseline, tuple(runs), leaderboard=board)
        self._storage.make_directory()
        self.record.write(self._storage)

    def run(
        self,
        perform: Callable[[Driver, Combination], int],
        stopped: Callable[[], bool],
        tell: Callable[[Combination, SmoothcertError], None],
        look: Look | None = None,
    ) -> StudyReport:
        """Run every combination that is not complete; one that fails does not keep the others from running.

        Args:
            perform: runs a driver to its end and returns the exit code; called in several threads where ``several``.
            stopped: whether to begin no other run.
            tell: told of a run that failed.
            look: shown the rows of all runs where the leaderboard is made anew.
        """
        waiting = [each for each in self.study.combinations if self.record.of(each.label).state != COMPLETE]
        todo, codes = iter(waiting), [0]
        with self._lanes(len(waiting)) as lanes:
            self.several = lanes.count > 1

            def work() -> bool:
                with self._lock:
                    each = None if stopped() else next(todo, None)
                if each is None:
                    return False
                code, state, basis = self._run_one(each, lanes, perform, tell)
                cut_short = stopped() and code not in FINISHED
                with self._lock:
                    codes.append(0 if cut_short else code)
                    self.record = self.record.with_state(each.label, STOPPED if cut_short else state, basis)
                    self.record.write(self._storage)
                return not cut_short

            lanes.run(work)
        return StudyReport(self.record, self.keep_leaderboard(look), max(codes), stopped())

    def _run_one(
        self,
        each: Combination,
        lanes: Lanes,
        perform: Callable[[Driver, Combination], int],
        tell: Callable[[Combination, SmoothcertError], None],
    ) -> tuple[int, str, str]:
        """Exit code and state of one run, and what these rest on where it is complete."""
        try:
            with self._lock:  # an encoder loads, and encodes texts, for one run at a time
                driver = self._encoders.driver(each)
                driver.sharers = lanes.busy
                _ = driver.phases, driver.code, driver.run
            code = perform(driver, each)
            state = COMPLETE if code == 0 else _STATES.get(code, f"unfinished (exit code {code})")
            return code, state, _done_basis(driver) if code == 0 else ""
        except SmoothcertError as exc:
            tell(each, exc)
            return exc.exit_code, exc.message, ""

    @contextmanager
    def _lanes(self, waiting: int) -> Iterator[Lanes]:
        """As many as there are runs at once: on Ray, where there are several to come."""
        job = self.study.combinations[0].job
        if job.executor.kind != "ray" or waiting < 2 or self.study.at_once == 1:
            yield Lanes(1)
            return
        with shared_cluster(job) as workers:
            yield Lanes(min(waiting, workers, self.study.at_once or MOST_AT_ONCE))

    def keep_leaderboard(self, look: Look | None = None) -> Leaderboard | None:
        """The leaderboard of the runs that have rows, kept beside the record; None without any.

        Args:
            look: shown these rows where it is made anew.
        """
        runs = {label: run for label, run in self.record.open_runs().items() if run.commits.unit_ids()}
        if not runs:
            return None
        baseline = self.record.baseline if self.record.baseline in runs else next(iter(runs))
        basis = board_basis(runs, baseline)
        kept = self._storage.read_if_present(LEADERBOARD_FILE)
        if kept is not None and _with_content(basis, kept) == self.record.leaderboard:
            return from_csv(kept.decode(), baseline)
        with Query(list(runs.values()), many=True) as query:
            board = make_leaderboard(runs, baseline, query)
            if look is not None:
                look(runs, basis, query)
        text = to_csv(board).encode()
        self._storage.replace(LEADERBOARD_FILE, text)
        self.record = replace(self.record, leaderboard=_with_content(basis, text))
        self.record.write(self._storage)
        return board


def board_basis(runs: Mapping[str, RunDirectory], baseline: str) -> str:
    """Hex digest of what the leaderboard of some runs rests on.

    Args:
        runs: by label.
        baseline: label of the run that others are compared with.

    Raises:
        StoreError: reading failed.
    """
    facts = [baseline, [[label, rests_on(run)] for label, run in runs.items()]]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _with_content(basis: str, text: bytes) -> str:
    return hashlib.sha256(basis.encode() + text).hexdigest()


def _is_done(driver: Driver, basis: str) -> bool:
    """Whether nothing is left of a run that was complete on this basis."""
    if not driver.run_exists or not basis or _done_basis(driver) != basis:
        return False
    committed = driver.run.commits.load()
    return all(next(driver.units_left(phase, committed), None) is None for phase in driver.phases)


def _done_basis(driver: Driver) -> str:
    """What makes a run complete: its rows, and how many of them may claim nothing."""
    facts = f"{rests_on(driver.run)} {driver.asked.output.quarantine_budget!r}"
    return hashlib.sha256(facts.encode()).hexdigest()


class _naming:
    """Errors of one combination name it."""

    def __init__(self, combination: Combination) -> None:
        self._label = combination.label

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SmoothcertError):
            raise type(error)(f"study, with {self._label}: {error.message}", remedy=error.remedy) from error
