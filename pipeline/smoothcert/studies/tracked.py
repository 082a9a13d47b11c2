"""What a study tells MLflow: leading figures of every run on their parent, the leaderboard, and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from smoothcert.job import Job
from smoothcert.studies.leaderboard import SMOOTHED, Leaderboard, entries
from smoothcert.studies.record import LEADERBOARD_FILE
from smoothcert.studies.tables import columns, difference_table, markdown, table, to_csv
from smoothcert.summary.summary import Summary
from smoothcert.tracking.study import track_study
from smoothcert.tracking.study_metrics import metric_of
from smoothcert.tracking.track import TrackingResult


def track(
    url: str,
    jobs: Sequence[Job],
    summaries: Mapping[str, Summary],
    board: Leaderboard,
    more: Mapping[str, str],
    rests_on: str,
    status: str,
) -> TrackingResult:
    """Bring the parent of a study's runs up to date.

    Args:
        url: directory of the study.
        jobs: of all of its runs, those to come too.
        summaries: the figures of the runs that there are, by label.
        board: their figures.
        more: other artifacts by name, e.g. the report.
        rests_on: digest of what they rest on.
        status: how the study stands, in MLflow's words.

    Raises:
        TrackingError: MLflow is away, or refused.
    """
    documents = {"leaderboard.md": page(board), LEADERBOARD_FILE: to_csv(board), **more}
    figures = leading_figures(board, middle_radius(jobs))
    return track_study(url, jobs[0], figures, documents, summaries, rests_on, status)


def middle_radius(jobs: Sequence[Job]) -> float:
    """The middle one of the radii that all jobs have; of all their radii where none is common.

    No result moves it: MLflow keeps every metric, so that those of another radius would stay and be out of date.
    """
    each = [set(job.certify.radii) for job in jobs]
    radii = sorted(set.intersection(*each) or set.union(*each))
    return radii[(len(radii) - 1) // 2]


def leading_figures(board: Leaderboard, radius: float) -> dict[str, float]:
    """The figures for people, by metric, at one radius: more would be too many to read as metrics."""
    found = {}
    shown = columns(board, {radius})
    for lines in entries(board.lines).values():
        for column in shown:
            line = lines.get(column.key)
            if line is not None and line.value is not None:
                subject = "" if line.subject == SMOOTHED else line.subject
                found[metric_of(column.title, line.label, subject)] = line.value
    return found


def page(board: Leaderboard) -> str:
    """The leaderboard in Markdown, with the differences to the baseline."""
    header, rows = difference_table(board)
    # MLflow folds a description behind its first lines
    text = f"{_what_it_is(board)}\n\n{markdown(*table(board))}\n\n{_MEANING}"
    if rows:
        text += f"\n\nDifferences to `{board.baseline}` on the same pairs, with 95% intervals; shares in points:\n\n"
        text += markdown(header, rows)
    return text + "\n"


def _what_it_is(board: Leaderboard) -> str:
    """How many runs, of how many pairs."""
    labels = list(dict.fromkeys(line.label for line in board.lines))
    pairs = [line.pairs for line in board.lines if line.figure == "draws_per_pair"]
    few, many = min(pairs, default=0), max(pairs, default=0)
    of = f"{many:,} pairs each" if few == many else f"{few:,} to {many:,} pairs"
    runs = "1 run" if len(labels) == 1 else f"{len(labels):,} runs"
    return f"{runs} of {of}, a column for each, against `{board.baseline}`."


_MEANING = (
    "Behind a name, `(bare)` is its encoder without noise. *certified*: right, and proven to stay so under every "
    "change of l2 size r at most (in [0,1] pixels), for the class of the smoothed feature *by distribution* of the "
    "draws' margins, for the class that most draws vote for *by vote*; *target*: pairs that a target of the job "
    "certifies; *cosine*: mean certified cosine at r; *robust* and *attack success*: against the worst attack of that "
    "size."
)
