"""``<runs>/<name>.study/study.json``: which runs a study has, how far each is, and what it is called there.

It is no run directory: ``smoothcert ls`` and ``query`` on ``<runs>`` pass over it. Nothing is lost with it: the same
command makes it anew from the study file, since every run is found by its fingerprint.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from smoothcert.errors import RunDirectoryError
from smoothcert.storage import Storage, join
from smoothcert.store import RunDirectory

STUDY_FILE = "study.json"
LEADERBOARD_FILE = "leaderboard.csv"
_FORMAT = 1

WAITING, STOPPED, COMPLETE = "waiting", "stopped", "complete"


@dataclass(frozen=True)
class StudyRun:
    """One run of a study.

    Attributes:
        label: what varies, short.
        url: its run directory.
        state: ``waiting``, ``stopped`` by a signal, ``complete``, or in words what is wrong with it.
        rests_on: of a complete one, digest of what makes it so: while it is that, nothing is left to do.
    """

    label: str
    url: str
    state: str = WAITING
    rests_on: str = ""


@dataclass(frozen=True)
class StudyRecord:
    """The content of ``study.json``.

    Attributes:
        name: of the study.
        baseline: label of the run that others are compared with.
        runs: in the order of the study file.
        tuning: what ``smoothcert tune`` chose and why; None for a study.
        leaderboard: digest of what ``leaderboard.csv`` rests on and of the file.
    """

    name: str
    baseline: str
    runs: tuple[StudyRun, ...]
    tuning: dict[str, object] | None = None
    leaderboard: str = ""

    def with_state(self, label: str, state: str, rests_on: str = "") -> StudyRecord:
        """With another state of one run."""
        return replace(
            self,
            runs=tuple(
                replace(run, state=state, rests_on=rests_on) if run.label == label else run
                for run in self.runs
            ),
        )

    def of(self, label: str) -> StudyRun:
        """The run of this label."""
        return next(run for run in self.runs if run.label == label)

    def write(self, storage: Storage) -> None:
        """Write it over an older one."""
        data = {"format": _FORMAT, **asdict(self)}
        storage.replace(STUDY_FILE, (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode())

    def open_runs(self) -> dict[str, RunDirectory]:
        """The runs that are there, by label."""
        found = {}
        for run in self.runs:
            if Storage(run.url).exists("run.json"):
                found[run.label] = RunDirectory.open(run.url)
        return found


def study_directory(runs: str, name: str) -> Storage:
    """Where a study keeps its record and its leaderboard."""
    return Storage(join(runs, f"{name}.study"))


def read_record(url: str) -> StudyRecord | None:
    """The record at a place; None where there is none.

    Raises:
        RunDirectoryError: it is damaged.
        StoreError: reading failed.
    """
    text = Storage(url).read_if_present(STUDY_FILE)
    if text is None:
        return None
    try:
        return _parse(text)
    except (ValueError, KeyError, TypeError) as exc:
        raise RunDirectoryError(
            f"'{join(url, STUDY_FILE)}' is damaged: {exc}",
            remedy="run 'smoothcert study' with the study file again: it writes it anew",
        ) from exc


def earlier_record(storage: Storage) -> StudyRecord | None:
    """The record that a study begins from; None where there is none that can be read: it is made anew.

    Raises:
        StoreError: reading failed.
    """
    text = storage.read_if_present(STUDY_FILE)
    try:
        return None if text is None else _parse(text)
    except (ValueError, KeyError, TypeError):
        return None


def _parse(text: bytes) -> StudyRecord:
    data = json.loads(text)
    if data["format"] != _FORMAT:
        raise ValueError(f"it has format {data['format']}, this version reads {_FORMAT}")
    runs = tuple(StudyRun(**run) for run in data["runs"])
    return StudyRecord(data["name"], data["baseline"], runs, data["tuning"], data.get("leaderboard", ""))
