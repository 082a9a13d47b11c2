"""A study into MLflow: each run when it ends, at the end whatever is missing or out of date there, and the parent."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from typing import TYPE_CHECKING

from smoothcert.cli.keeping import pages
from smoothcert.cli.terminal import Terminal
from smoothcert.errors import TrackingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smoothcert.job import Job
    from smoothcert.sql import Query
    from smoothcert.store import RunDirectory
    from smoothcert.studies.driving import StudyDriver, StudyReport
    from smoothcert.summary.summary import Summary


_QUIT_S = 3.0
"""How long MLflow may take to hear of a second signal: whoever sends one wants to leave."""


class StudyTracking:
    """What MLflow is told of a study; once it is away for a run, nothing more is sent in this session.

    Args:
        driver: of the study.
        terminal: where to say so.
    """

    def __init__(self, driver: StudyDriver, terminal: Terminal) -> None:
        self._driver = driver
        self._terminal = terminal
        self._job: Job = driver.study.combinations[0].job
        self._wanted = self._job.tracking.enabled
        self._lock = threading.Lock()
        self._untracked: TrackingError | None = None
        self._told = ""
        """How the study stands, as MLflow was told last in this session."""
        self._summaries: dict[str, tuple[str, Summary]] = {}
        """Figures of the runs that ended in this session, by label, with what they rest on."""
        self._page: tuple[str, dict[str, str]] = ("", {})
        """The page of all runs, with the basis of their leaderboard."""

    def begin(self) -> None:
        """Say that the study goes on, before its first run; where MLflow is away, again when that has ended."""
        if not self._wanted:
            return
        try:
            self._tell("RUNNING")
        except TrackingError as exc:
            self._terminal.say(("not tracked yet: ", "yellow"), f"{exc.message}; tried again when a run ends")

    def cut_short(self, error: BaseException) -> None:
        """Say that something ended it before MLflow was told its end: an error, or a second signal."""
        if self._told != "RUNNING" or self._untracked is not None:
            return
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            # in a thread, so that neither a server nor another thread's talk with it keeps anybody here
            last_word = threading.Thread(target=self._tell_or_not, args=("KILLED",), daemon=True)
            last_word.start()
            last_word.join(_QUIT_S)
            return
        try:
            self._tell("FAILED")
        except TrackingError as exc:
            self._give_up(exc)

    def _tell(self, status: str) -> None:
        from smoothcert.tracking.study import mark_study

        mark_study(self._driver.url, self._job, status)
        self._told = status

    def _tell_or_not(self, status: str) -> None:
        with contextlib.suppress(TrackingError):
            self._tell(status)

    def keep_run(self, run: RunDirectory, job: Job, label: str, summary: Summary, query: Query) -> None:
        """Log one run that ended, unless MLflow was away before.

        Args:
            run: the run.
            job: its job.
            label: what the study calls it.
            summary: its figures.
            query: the open query that these are of.
        """
        with self._lock:
            if not self._wanted or self._untracked is not None:
                return
            self._summaries[label] = (self._rests_on(run, label, query), summary)
            try:
                self._log(run, job, label, query)
            except TrackingError as exc:
                self._give_up(exc)

    def look(self, runs: Mapping[str, RunDirectory], basis: str, query: Query) -> None:
        """Make the page of all runs while their rows are open.

        Args:
            runs: by label.
            basis: digest of what their leaderboard rests on.
            query: an open query with all of them.
        """
        if self._wanted and self._untracked is None:
            made = pages(list(runs.values()), self._job, self._terminal, names=list(runs), query=query)
            self._page = (basis, made)

    def keep_study(self, report: StudyReport) -> None:
        """Log what MLflow does not have yet, of the runs that are complete and of the study, and say where it is."""
        if not self._wanted:
            return
        try:
            if self._untracked is None and report.board is None:
                self._tell(_status(report))
            elif self._untracked is None:
                self._terminal.say(f"MLflow: {self._bring_up_to_date(report)}")
        except TrackingError as exc:
            self._give_up(exc)
        if self._untracked is not None:
            self._terminal.say(
                "  to log it later: run the same command again; what is done is not done again"
            )

    def _bring_up_to_date(self, report: StudyReport) -> str:
        """What to open in order to see it."""
        from smoothcert.studies.driving import board_basis
        from smoothcert.studies.record import COMPLETE
        from smoothcert.studies.tracked import track
        from smoothcert.tracking.study import read_tracked

        assert report.board is not None
        there = read_tracked(self._driver.url, self._job)
        runs: Mapping[str, RunDirectory] = report.record.open_runs()
        for label, run in runs.items():
            complete = report.record.of(label).state == COMPLETE
            if complete and there.runs.get(run.run_id) != self._rests_on(run, label):
                self._log(run, run.info.job, label, None)
        basis = board_basis(runs, report.board.baseline)
        shown = f"{basis} {self._job.tracking.report}"
        rests_on = hashlib.sha256(shown.encode()).hexdigest()
        status = _status(report)
        if there.rests_on == rests_on:
            if (self._told or there.status) != status:
                self._tell(status)
            return there.parent.how_to_look
        made, documents = self._page
        if made != basis:
            documents = pages(list(runs.values()), self._job, self._terminal, names=list(runs))
        summaries = {label: self._summary(run, label) for label, run in runs.items()}
        url = self._driver.url
        jobs = [each.job for each in self._driver.study.combinations]
        tracked = track(url, jobs, summaries, report.board, documents, rests_on, status)
        self._told = status
        return tracked.how_to_look

    def _log(self, run: RunDirectory, job: Job, label: str, query: Query | None) -> None:
        from smoothcert.tracking import track_run

        if not self._told:  # the parent is known as a study's before any of its runs is there
            self._tell("RUNNING")
        documents = pages([run], self._job, self._terminal, query=query)
        summary = self._summary(run, label)
        rests_on = self._summaries[label][0]
        track_run(run.url, summary, job, self._job.tracking, label, documents, rests_on=rests_on)

    def _summary(self, run: RunDirectory, label: str) -> Summary:
        """The figures of a run as it is now, counted once while it stays so."""
        from smoothcert.summary.summary import summarise

        basis = self._rests_on(run, label)
        kept = self._summaries.get(label)
        if kept is None or kept[0] != basis:
            kept = self._summaries[label] = (basis, summarise(run.url))
        return kept[1]

    def _rests_on(self, run: RunDirectory, label: str, query: Query | None = None) -> str:
        """Digest of what MLflow shows of a run, as of now or of an open query with it."""
        from smoothcert.audit.kept import rests_on

        committed = None if query is None else query.committed(run.run_id)
        facts = [rests_on(run, committed), label, self._job.tracking.report, list(run.notes())]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _give_up(self, error: TrackingError) -> None:
        self._untracked = error
        self._terminal.say(("not tracked: ", "yellow"), error.message)


def _status(report: StudyReport) -> str:
    """How a study stands at the end of a session, in MLflow's words."""
    from smoothcert.studies.record import COMPLETE, STOPPED, WAITING

    states = {run.state for run in report.record.runs}
    if states == {COMPLETE}:
        return "FINISHED"
    return "KILLED" if report.stopped and states & {STOPPED, WAITING} else "FAILED"
