"""Runs to rank, and what each is called: in a study by its label, elsewhere by what varies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from smoothcert.errors import RunDirectoryError
from smoothcert.job.naming import defence_name, run_title, short_name
from smoothcert.runtime.listing import ABSENT, what_varies
from smoothcert.store import RunDirectory
from smoothcert.store.runs import find_runs
from smoothcert.studies.record import read_record

_LONGEST = 60


def find_labelled_runs(places: Sequence[str]) -> tuple[dict[str, RunDirectory], str]:
    """The runs of some studies, run directories or directories of runs, by label; and the label of a baseline.

    Raises:
        RunDirectoryError: there is no run at a place, or one is damaged.
        StoreError: reading failed.
    """
    labelled: dict[str, RunDirectory] = {}
    others: list[RunDirectory] = []
    baseline = ""
    for place in places:
        record = read_record(place)
        if record is None:
            others += [RunDirectory.open(url) for url in find_runs(place)]
            continue
        found = record.open_runs()
        if not found:
            raise RunDirectoryError(
                f"study '{place}' has no run yet", remedy="run 'smoothcert study' with its file"
            )
        for label, run in found.items():
            labelled[label if label not in labelled else f"{record.name}: {label}"] = run
        baseline = baseline or (record.baseline if record.baseline in found else "")
    known = {run.run_id for run in labelled.values()}
    others = [run for run in {run.run_id: run for run in others}.values() if run.run_id not in known]
    for run, varies in zip(others, what_varies([run.info for run in others]), strict=True):
        label = _say(varies, run)
        if not label or len(label) > _LONGEST or label in labelled:
            label = short_name(run.url)
        labelled[label if label not in labelled else f"{run_title(run.info.job)} {run.run_id[-6:]}"] = run
    return labelled, baseline or next(iter(labelled))


def _say(varies: Mapping[str, str], run: RunDirectory) -> str:
    """What varies, in words: a defence by its name, a field that a run does not have as ``no <field>``."""
    parts: list[str] = []
    for key, value in varies.items():
        name = key.rpartition(".")[2]
        if key in ("encoder.purifier", "encoder.mapper"):
            said = defence_name(run.info.job.encoder)
        else:
            said = f"no {name}" if value == ABSENT else f"{name} {short_name(value)}"
        parts += [said] if said not in parts else []
    return ", ".join(parts)
