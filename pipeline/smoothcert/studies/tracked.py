"""What a study tells MLflow: leading figures of every run on their parent, the leaderboard, and curves."""

from __future__ import annotations

from collections.abc import Mapping

from smoothcert.job import Job
from smoothcert.store import RunDirectory
from smoothcert.studies.leaderboard import Leaderboard, entries
from smoothcert.studies.record import LEADERBOARD_FILE
from smoothcert.studies.tables import columns, difference_table, markdown, table, to_csv
from smoothcert.summary.summary import summarise
from smoothcert.tracking.study import track_study
from smoothcert.tracking.track import TrackingResult


def track(
    url: str,
    job: Job,
    runs: Mapping[str, RunDirectory],
    board: Leaderboard,
    more: Mapping[str, str],
    rests_on: str,
) -> TrackingResult:
    """Bring the parent of a study's runs up to date.

    Args:
        url: directory of the study.
        job: of one of its runs.
        runs: the runs that there are, by label.
        board: their figures.
        more: other artifacts by name, e.g. the report.
        rests_on: digest of what they rest on.

    Raises:
        TrackingError: MLflow is away, or refused.
    """
    summaries = {label: summarise(run.url) for label, run in runs.items()}
    documents = {"leaderboard.md": page(board), LEADERBOARD_FILE: to_csv(board), **more}
    return track_study(url, job, leading_figures(board), documents, summaries, rests_on)


def leading_figures(board: Leaderboard) -> dict[str, float]:
    """What the table shows, ``<figure>/<run>``: MLflow charts each figure over all runs in a section of its own."""
    found = {}
    shown = columns(board)
    for entry, lines in entries(board.lines).items():
        for column in shown:
            line = lines.get(column.key)
            if line is not None and line.value is not None:
                found[f"{column.title}/{entry}"] = line.value
    return found


def page(board: Leaderboard) -> str:
    """The leaderboard in Markdown, with the differences to the baseline."""
    header, rows = difference_table(board)
    text = markdown(*table(board))
    if rows:
        text += f"\n\nDifferences to `{board.baseline}` on the same pairs, with 95% intervals; shares in points:\n\n"
        text += markdown(header, rows)
    return text + "\n"
