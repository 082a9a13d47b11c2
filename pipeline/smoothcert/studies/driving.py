"""One study to its end: everything checked, then every run by the one driver, the leaderboard and MLflow kept current.

A study has no state of its own that could be lost: killed at any moment, the same command finds every run by its
fingerprint, goes on where it stood, and does nothing for those that are done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from smoothcert.encoders import Encoder
from smoothcert.errors import JobError, SmoothcertError
from smoothcert.job import Combination, EncoderSection, Study
from smoothcert.runtime.driver import Driver
from smoothcert.store import RunDirectory
from smoothcert.studies.leaderboard import Leaderboard, make_leaderboard
from smoothcert.studies.record import COMPLETE, LEADERBOARD_FILE, StudyRecord, StudyRun, study_directory
from smoothcert.studies.tables import to_csv

FINISHED = (0, 1, 6)
"""Exit codes of a run whose every pair has its rows; 1 and 6 say that something is wrong with what they hold."""
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
    """The encoder that was loaded last: combinations that share it follow each other, or load it again."""

    def __init__(self) -> None:
        self._held: tuple[EncoderSection, Encoder] | None = None

    def driver(self, combination: Combination) -> Driver:
        """A driver of the combination, its encoder loaded."""
        section = combination.job.encoder
        held = self._held[1] if self._held is not None and self._held[0] == section else None
        driver = Driver(combination.job, held)
        self._held = (section, driver.encoder)
        return driver


class StudyDriver:
    """The runs of a study, one after the other.

    Args:
        study: the study.

    Attributes:
        study: as given.
        record: which runs there are; after ``check``.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self._encoders = Encoders()
        self._storage = study_directory(study.combinations[0].job.output.runs, study.name)
        self.record = StudyRecord(study.name, study.baseline, ())

    @property
    def url(self) -> str:
        """Where record and leaderboard are kept."""
        return self._storage.url

    def check(self) -> None:
        """Find out everything that can be wrong with any combination before any of them begins.

        Raises:
            JobError: a combination cannot be done, or two of them are one run; errors name it.
            SmoothcertError: data or an encoder cannot be used.
        """
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
            runs.append(StudyRun(each.label, driver.url))
        self.record = StudyRecord(self.study.name, self.study.baseline, tuple(runs))
        self._storage.make_directory()
        self.record.write(self._storage)

    def run(
        self,
        perform: Callable[[Driver, Combination], int],
        stopped: Callable[[], bool],
        tell: Callable[[Combination, SmoothcertError], None],
    ) -> StudyReport:
        """Run every combination; one that fails does not keep the others from running.

        Args:
            perform: runs a driver to its end and returns the exit code.
            stopped: whether to begin no other run.
            tell: told of a run that failed.
        """
        worst = 0
        for each in self.study.combinations:
            if stopped():
                break
            try:
                code = perform(self._encoders.driver(each), each)
                state = COMPLETE if code == 0 else _STATES.get(code, f"unfinished (exit code {code})")
            except SmoothcertError as exc:
                tell(each, exc)
                code, state = exc.exit_code, exc.message
            if stopped() and code not in FINISHED:
                break
            worst = max(worst, code)
            self.record = self.record.with_state(each.label, state)
            self.record.write(self._storage)
        return StudyReport(self.record, self.keep_leaderboard(), worst, stopped())

    def keep_leaderboard(self) -> Leaderboard | None:
        """The leaderboard of the runs that are there, kept beside the record; None without runs."""
        runs: Mapping[str, RunDirectory] = self.record.open_runs()
        if not runs:
            return None
        board = make_leaderboard(runs, self.record.baseline if self.record.baseline in runs else "")
        self._storage.replace(LEADERBOARD_FILE, to_csv(board).encode())
        return board


class _naming:
    """Errors of one combination name it."""

    def __init__(self, combination: Combination) -> None:
        self._label = combination.label

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SmoothcertError):
            raise type(error)(f"study, with {self._label}: {error.message}", remedy=error.remedy) from error
