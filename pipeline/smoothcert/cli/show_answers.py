"""What questions show at their end: how many answers are right, and how many are certified, by kind of question."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoothcert.cli.show_rows import show_rows
from smoothcert.cli.tables import print_table
from smoothcert.cli.terminal import Terminal

if TYPE_CHECKING:
    from smoothcert.runtime.driver import Driver, PhaseReport


def show_answers(driver: Driver, report: PhaseReport, terminal: Terminal) -> int:
    """Print shares of questions by kind; returns the exit code that the rows deserve."""
    from smoothcert.sql import Query
    from smoothcert.summary.answers import answer_counts

    radii = driver.job.certify.radii
    with Query([driver.run]) as query:
        counts = answer_counts(query, driver.run.run_id, radii)
    names = [f"answers_right/{subject}" for subject in ("bare", "smoothed", "defended", "vote")]
    names += [f"answers_certified/r{radius:g}" for radius in radii]
    names = [name for name in names if name in counts]
    stem = names[0] if names else ""
    kinds = sorted(name.removeprefix(f"{stem}_") for name in counts if stem and name.startswith(f"{stem}_"))
    rows = []
    for kind in (*kinds, None):
        cells = [counts[name if kind is None else f"{name}_{kind}"] for name in names]
        shares = [f"{count / of:.1%}" if of else "-" for count, of in cells]
        rows.append((kind or "all", str(max((of for _, of in cells), default=0)), *shares))
    if names:
        title = "Answers: right without attack, and certified by vote under any attack of a radius"
        header = ("questions", "", *(_title(name) for name in names))
        print_table(Terminal(), title, header, rows, left=header[:1])
    for name, (count, of) in counts.items():
        if name.startswith("answers_cut/"):
            terminal.say(
                f"{count:,} of {of:,} answers of '{name.rpartition('/')[2]}' were cut at answer.max_new_tokens="
                f"{driver.job.answer.max_new_tokens if driver.job.answer else ''}"
            )
    _show_scores(driver)
    phase = next(each for each in driver.phases if each.name == "answers")
    return show_rows(driver, phase, report, terminal)


def _show_scores(driver: Driver) -> None:
    """Print certified scores by radius, where the job asks for a score."""
    from smoothcert.sql import Query
    from smoothcert.summary.answers import answer_scores

    answer = driver.job.answer
    if answer is None or answer.vote.score is None:
        return
    radii = driver.job.certify.radii
    with Query([driver.run]) as query:
        scores = answer_scores(query, driver.run.run_id, radii)
    figures = {"mean": "answers_certified_score", "percentile": "answers_certified_score_percentile"}
    rows = []
    for radius in radii:
        found = [scores.get(f"{figure}/r{radius:g}") for figure in figures.values()]
        rows.append((f"{radius:g}", *("-" if each is None else f"{each[1]:.3f}" for each in found)))
    title = (
        f"Certified {answer.vote.score} of noisy answers under any attack of a radius, mean over questions"
    )
    print_table(Terminal(), title, ("radius", *figures), rows)


def _title(name: str) -> str:
    figure, _, where = name.partition("/")
    return where if figure == "answers_right" else f"certified {where[1:]}"
