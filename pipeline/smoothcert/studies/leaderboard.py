"""Runs side by side: the figures that rank them, and how each differs from a baseline on the same pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from smoothcert.catalogue.certificates import CATALOGUE
from smoothcert.sql import Query, asking
from smoothcert.sql.leaderboard_view import QUESTION
from smoothcert.sql.literals import quote
from smoothcert.sql.measures import measures
from smoothcert.sql.paired import paired_figures
from smoothcert.statistics import PairedDifference, share_difference
from smoothcert.store import RunDirectory
from smoothcert.store.asked import asked_tasks

BARE, SMOOTHED = "bare", "smoothed"
_COMPARED = ("accuracy", "certified_accuracy", "certified_share", "certified_cosine", "target_certified")
"""Figures over certificates that are compared with the baseline, those of leading certificates."""


@dataclass(frozen=True)
class Line:
    """One figure of one run, as a row of ``leaderboard.csv``.

    Attributes:
        label: what the run is called here.
        run_id: the run.
        subject, figure, certificate, rule, radius, cosine, norm, budget, objective, value, low, high, pairs: as in the
            view ``leaderboard``.
        difference: to the baseline's, on the same pairs; None where there is none.
    """

    label: str
    run_id: str
    subject: str
    figure: str
    certificate: str | None
    rule: str | None
    radius: float | None
    cosine: float | None
    norm: str | None
    budget: float | None
    objective: str | None
    value: float | None
    low: float | None
    high: float | None
    pairs: int
    difference: PairedDifference | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What makes it the same figure of another run."""
        return (
            *(self.subject, self.figure, self.certificate, self.radius, self.cosine),
            *(self.norm, self.budget, self.objective),
        )

    @property
    def entry(self) -> str:
        """Whose figure it is, in words: of the smoothed encoder the run's label alone."""
        return self.label if self.subject == SMOOTHED else f"{self.label} ({self.subject})"

    @property
    def leading(self) -> bool:
        """Whether it does not rest on a certificate, or on a leading one, or is what the job asked to be decided."""
        return self.certificate is None or self.certificate in _LEADING or self.figure == "target_certified"


_LEADING = {each.name for each in CATALOGUE if each.leading}


@dataclass(frozen=True)
class Leaderboard:
    """The figures of some runs.

    Attributes:
        lines: all of them, run by run in the order in which the runs were given.
        baseline: label of the run that others are compared with.
    """

    lines: tuple[Line, ...]
    baseline: str


def make_leaderboard(
    runs: Mapping[str, RunDirectory], baseline: str = "", query: Query | None = None
) -> Leaderboard:
    """The leaderboard of some runs.

    Args:
        runs: by the label that each is to have; each run once.
        baseline: a label; the first one by default.
        query: an open query with all of the runs, where there is one.

    Raises:
        StoreError: a run cannot be read.
    """
    baseline = baseline or next(iter(runs))
    labels = {run.run_id: label for label, run in runs.items()}
    with asking(list(runs.values()), query) as query:
        of_run: dict[str, list[Line]] = {label: [] for label in runs}
        for row in query.rows("SELECT * EXCLUDE (name) FROM leaderboard"):
            line = Line(labels[row["run_id"]], **row)
            of_run[line.label].append(line)
        base = {line.key: line for line in of_run[baseline]}
        lines: list[Line] = []
        for label, found in of_run.items():
            compared = {} if label == baseline else _compare(query, runs[label], runs[baseline], found, base)
            lines += [_with(line, compared.get(line.key)) for line in found]
    return Leaderboard(tuple(lines), baseline)


def _with(line: Line, difference: PairedDifference | None) -> Line:
    fields = {name: getattr(line, name) for name in line.__dataclass_fields__}
    return Line(**(fields | {"difference": difference}))


def _compare(
    query: Query,
    run: RunDirectory,
    baseline: RunDirectory,
    lines: Iterable[Line],
    base: Mapping[tuple[object, ...], Line],
) -> dict[tuple[object, ...], PairedDifference]:
    """Differences of leading figures to the baseline's, by key."""
    wanted = [line for line in lines if line.leading and line.key in base and line.figure in _COMPARED]
    ours, theirs = ({_key(each): each for each in measures(each_run.info)} for each_run in (run, baseline))
    keys = [line.key for line in wanted if line.key in ours and line.key in theirs]
    found = paired_figures(query, run.run_id, baseline.run_id, [(ours[key], theirs[key]) for key in keys])
    whole, attacked = (all(flags) for flags in zip(_done(query, run), _done(query, baseline), strict=True))
    compared = {
        key: each.difference if whole else _open(each.difference)
        for key, each in zip(keys, found, strict=True)
    }
    under_attack = [line for line in lines if line.figure in _ATTACKED and line.key in base]
    if under_attack:
        counts = _attacked(query, run, baseline)
        for line in under_attack:
            each = share_difference(*counts.get(_question(line), (0, 0, 0)))
            compared[line.key] = each if attacked else _open(each)
    return compared


def _done(query: Query, run: RunDirectory) -> tuple[bool, bool]:
    """Whether a run has all rows of its certification, and those of its attacks too."""
    (row,) = query.rows(f"SELECT finished FROM runs WHERE run_id = {quote(run.run_id)}")
    committed = run.commits.load()
    owed = any(
        next(run.pending(committed, task.task_id), None) is not None
        for task in asked_tasks(run)
        if "attack" in task.section
    )
    return bool(row["finished"]), bool(row["finished"]) and not owed


def _open(each: PairedDifference) -> PairedDifference:
    """A difference of which nothing is known: its interval is for a number of pairs that was fixed beforehand."""
    return replace(each, low=-1.0, high=1.0, p_value=None)


def _key(measure: Any) -> tuple[object, ...]:
    certificate = measure.certificate or None
    place = (measure.subject, measure.figure, certificate, measure.radius, measure.cosine)
    return (*place, None, None, None)


_ATTACKED = {
    "robust_accuracy": "coalesce(bool_and(clean_margin >= 0) AND NOT bool_or(success), false)",
    "attack_success": "CASE WHEN bool_and(clean_margin >= 0) THEN bool_or(success) END",
}
"""Of one pair over all attacks with one question: whether it is right before and after; of a right one, whether it is
turned. Success is compared over the pairs that are right in both runs."""


_SAME = ("subject", "norm", "budget", "objective")
"""What makes it one question in two runs."""


def _question(line: Line) -> tuple[object, ...]:
    return (line.figure, *(getattr(line, name) for name in _SAME))


def _attacked(
    query: Query, run: RunDirectory, baseline: RunDirectory
) -> dict[tuple[object, ...], tuple[int, int, int]]:
    """Pairs that hold a figure in the run alone, in the baseline alone, and that both have, by figure and question."""
    keys = ", ".join(_SAME)
    ours, theirs = (
        f"(SELECT pair_id, {keys.replace('objective', f'{QUESTION} AS objective')}, "
        + ", ".join(f"{sql} AS {side}_{name}" for name, sql in _ATTACKED.items())
        + f" FROM attacks WHERE run_id = {quote(each.run_id)} GROUP BY ALL)"
        for side, each in (("a", run), ("b", baseline))
    )
    counts = ", ".join(
        f"[count_if(a_{name} AND NOT b_{name}), count_if(b_{name} AND NOT a_{name}), "
        f"count_if(a_{name} IS NOT NULL AND b_{name} IS NOT NULL)] AS {name}"
        for name in _ATTACKED
    )
    rows = query.rows(
        f"SELECT {keys}, {counts} FROM {ours} JOIN {theirs} USING (pair_id, {keys}) GROUP BY {keys}"
    )
    found = {}
    for row in rows:
        for name in _ATTACKED:
            gained, lost, pairs = (int(count or 0) for count in row[name])
            found[(name, *(row[key] for key in _SAME))] = (gained, lost, pairs)
    return found


def entries(lines: Sequence[Line]) -> dict[str, dict[tuple[object, ...], Line]]:
    """Lines by whose they are, those of subjects besides the smoothed one only where they were attacked."""
    attacked = {line.entry for line in lines if line.norm is not None or line.subject == SMOOTHED}
    found: dict[str, dict[tuple[object, ...], Line]] = {}
    for line in lines:
        if line.entry in attacked:
            found.setdefault(line.entry, {})[line.key[1:]] = line
    return found
