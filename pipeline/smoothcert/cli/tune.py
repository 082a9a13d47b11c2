"""``smoothcert tune``: choose a combination on pairs set aside, then certify the others with it."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from smoothcert.cli.options import ExecutorKind, JobFile, Overrides, overrides, shorten_url
from smoothcert.cli.running import StopSignals, run_job, run_phases
from smoothcert.cli.study import run_trainings
from smoothcert.cli.tables import print_table
from smoothcert.cli.terminal import Terminal
from smoothcert.errors import ExecutorError, JobError
from smoothcert.job import load_study

if TYPE_CHECKING:
    from smoothcert.job import Combination
    from smoothcert.studies.tuning import Choice


def tune(job_file: JobFile, set_: Overrides = None, executor: ExecutorKind = None) -> None:
    """Choose sigma, draws, rule or defence for a goal by successive halving, then certify pairs it did not see.

    The study file's section tune names the goal, limits, and how many pairs are set aside to choose on. Trials and
    certification are ordinary runs: run the same command again to resume. Exit codes are those of certify; 2 where no
    combination keeps to the limits.
    """
    study = load_study(job_file, overrides(set_, executor))
    try:
        import optuna  # noqa: F401
    except ImportError as exc:
        raise JobError("smoothcert tune needs Optuna", remedy="pip install 'smoothcert[tune]'") from exc
    from smoothcert.runtime.driver import Driver
    from smoothcert.studies.driving import Encoders
    from smoothcert.studies.record import COMPLETE, StudyRecord, StudyRun, study_directory
    from smoothcert.studies.tuning import choose, refuse_rows_chosen_on, tuning_section

    tuning_section(study)
    terminal = Terminal(stderr=True)
    stopped_by = StopSignals(terminal)
    if (ended := run_trainings(study.trainings, stopped_by)) != 0:
        sys.exit(ended)
    encoders = Encoders()
    trials: dict[str, str] = {}

    def trial(combination: Combination) -> str:
        driver = encoders.driver(combination)
        driver.check()
        part = combination.job.data.part
        terminal.say((f"{combination.label}: ", "bold"), f"{part.first if part else 0} pairs set aside")
        code = run_phases(driver, stopped_by, show=lambda driver, phase, report, terminal: 0)
        if stopped_by.signal is not None:
            sys.exit(128 + stopped_by.signal)
        if code:
            raise ExecutorError(
                f"the trial of '{combination.label}' has pairs without a row: {driver.url}",
                remedy="fix the cause and run the same command again",
            )
        trials[driver.url] = combination.label
        return driver.url

    choice = choose(study, trial, lambda: stopped_by.signal is not None)
    _show(Terminal(), choice)
    refuse_rows_chosen_on(choice.chosen.job, list(trials))
    final = Driver(choice.chosen.job)
    code = run_job(final)
    record = StudyRecord(
        study.name,
        choice.chosen.label,
        (StudyRun(choice.chosen.label, final.url, COMPLETE if not code else f"exit code {code}"),),
        choice.as_mapping(),
    )
    storage = study_directory(choice.chosen.job.output.runs, f"{study.name}-tuned")
    storage.make_directory()
    replace(record, name=f"{study.name}-tuned").write(storage)
    terminal.say(f"what was tried, and on which pairs: {shorten_url(storage.url)}/study.json")
    sys.exit(code)


def _show(terminal: Terminal, choice: Choice) -> None:
    header = ("run", "pairs", "certified", "accuracy", "draws a pair", "within limits")
    rows = []
    for each in choice.tried:
        accuracy = "-" if each.accuracy is None else f"{each.accuracy:.1%}"
        cells = (each.label, str(each.pairs), f"{each.share:.1%}", accuracy, f"{each.draws_per_pair:,.0f}")
        rows.append((*cells, "yes" if each.within else "no"))
    print_table(terminal, "Tried on the pairs set aside, the best first", header, rows, left=header[:1])
    part = choice.chosen.job.data.part
    assert part is not None
    terminal.say(
        ("chosen: ", "bold"),
        f"{choice.chosen.label}; chosen on {part.set_aside:,} pairs set aside, certified on the rest "
        "(data.part in the run's job.yaml)",
    )
