"""Choosing a combination on pairs that were set aside, then certifying the others with it, once.

Successive halving (Jamieson and Talwalkar 2016; Li et al. 2020), by Optuna's pruner: every combination, one after the
other, is tried on a few of the pairs set aside, and goes on with more of them while it is among the best so far of each
round. Each trial is an ordinary run on these pairs, so that a tuning which was killed goes on where it stood. What is
chosen is certified on pairs that no trial has seen, so that the choice costs the certificates nothing: they are as if
the job had been written so from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

from smoothcert.datasets import open_source
from smoothcert.errors import JobError, RunDirectoryError
from smoothcert.job import Combination, Job, Study, TuneSection
from smoothcert.job.certify import Target
from smoothcert.job.data import PartSection
from smoothcert.sql import Query
from smoothcert.store import RunDirectory
from smoothcert.store.runs import find_runs

RunTrial = Callable[[Combination], str]
"""Runs a combination to its end and returns the URL of its run directory."""


@dataclass(frozen=True)
class Tried:
    """What one combination did on the pairs set aside, as far as it came.

    Attributes:
        label: of the combination.
        pairs: the most pairs that it was tried on.
        share: certified for the goal, of these.
        accuracy: of the smoothed encoder without attack; None without labels.
        draws_per_pair: pilot draws included.
        within: whether it keeps to the limits.
    """

    label: str
    pairs: int
    share: float
    accuracy: float | None
    draws_per_pair: float
    within: bool


@dataclass(frozen=True)
class Choice:
    """What was chosen, and on what.

    Attributes:
        chosen: the combination, its job about the pairs that nothing was chosen on.
        tried: every combination, the best first.
        bare_accuracy: of the baseline's encoder without noise, on the pairs set aside; None without labels.
    """

    chosen: Combination
    tried: tuple[Tried, ...]
    bare_accuracy: float | None

    def as_mapping(self) -> dict[str, object]:
        """For ``study.json``."""
        part = self.chosen.job.data.part
        return {
            "chosen": self.chosen.label,
            "chosen_on": {"set_aside": part.set_aside, "use": "set_aside"} if part is not None else None,
            "certified_on": {"set_aside": part.set_aside, "use": "rest"} if part is not None else None,
            "bare_accuracy": self.bare_accuracy,
            "tried": [
                {name: getattr(each, name) for name in each.__dataclass_fields__} for each in self.tried
            ],
        }


def tuning_section(study: Study) -> TuneSection:
    """The section of a study by which to choose.

    Raises:
        JobError: it has none, its goal cannot be had of every combination, or its job is about a part already.
    """
    tune = study.tune
    if tune is None:
        raise JobError(
            f"study '{study.name}' has no section 'tune'",
            remedy="add one, e.g. tune: {goal: {certificate: angular, cosine: 0.8, radius: 0.25}, pairs: 64}",
        )
    for each in study.combinations:
        if each.job.data.part is not None:
            raise JobError(
                f"with {each.label}: data.part is set, but 'tune' sets pairs aside itself",
                remedy="remove data.part",
            )
        if tune.limits.accuracy_drop is not None and each.job.zero_shot is None:
            raise JobError(
                f"with {each.label}: tune.limits.accuracy_drop needs classes",
                remedy="add the section zero_shot",
            )
    _candidates(study, tune)  # a goal that a combination cannot have is refused here
    return tune


def with_goal(combination: Combination, goal: Target, label: str) -> Combination:
    """The combination with the goal as a target, unless it has it: then it is decided by the one test that counts.

    Args:
        combination: of the study.
        goal: to be decided.
        label: what it is called then.
    """
    job = combination.job
    if goal in job.certify.targets:
        return Combination(label, combination.settings, job)
    data = job.model_dump(mode="json")
    data["certify"]["targets"] = [*data["certify"]["targets"], goal.model_dump(mode="json")]
    try:
        return Combination(label, combination.settings, Job.model_validate(data))
    except ValueError as exc:
        problem = str(exc).splitlines()[-2].strip() if len(str(exc).splitlines()) > 2 else str(exc)
        raise JobError(
            f"with {combination.label}: tune.goal '{goal.name}' cannot be a target: {problem}",
            remedy="choose another goal, or leave this combination out",
        ) from exc


def _candidates(study: Study, tune: TuneSection) -> dict[str, tuple[Combination, Target]]:
    """Each combination with each goal, by label, those of the baseline first: limits are held against it."""
    base = study.of(study.baseline)
    found = {}
    for each in (base, *(each for each in study.combinations if each is not base)):
        for goal in tune.goals:
            label = each.label if len(tune.goals) == 1 else f"{each.label}, {goal.name}"
            found[label] = with_goal(each, goal, label), goal
    return found


def on_part(combination: Combination, part: PartSection) -> Combination:
    """The combination on a part of the pairs, without attacks where these are set aside."""
    job = combination.job
    changed: dict[str, Any] = {"data": job.data.model_copy(update={"part": part})}
    if part.use == "set_aside":
        changed["attacks"] = ()
        changed["name"] = _trial_name(job)
    return Combination(combination.label, combination.settings, job.model_copy(update=changed))


def choose(study: Study, trial: RunTrial, stopped: Callable[[], bool] = lambda: False) -> Choice:
    """Try every combination on the pairs set aside, and choose.

    Args:
        study: with a section ``tune``.
        trial: runs a combination on the pairs that its job is about; runs that are done are not done again.
        stopped: whether to begin no other trial.

    Raises:
        JobError: no combination keeps to the limits, the goal is certified for no pair, or the tuning was stopped.
    """
    tune = tuning_section(study)
    halving = _Halving(study, tune, trial)
    tried = halving.run(stopped)
    best = tried[0]
    if not best.within or best.share <= 0.0:
        why = (
            f"no combination keeps to the limits ({best.label} comes nearest)"
            if not best.within
            else f"no combination certifies {' or '.join(repr(goal.name) for goal in tune.goals)} for any of "
            f"{best.pairs} pairs"
        )
        raise JobError(
            f"tune: {why}; nothing was certified", remedy="widen tune.limits, or ask for less in tune.goal"
        )
    part = PartSection(set_aside=tune.pairs, use="rest")
    chosen = on_part(_candidates(study, tune)[best.label][0], part)
    return Choice(chosen, tuple(tried), halving.bare_accuracy)


class _Halving:
    def __init__(self, study: Study, tune: TuneSection, trial: RunTrial) -> None:
        self._study = study
        self._tune = tune
        self._trial = trial
        self._bare: dict[int, float | None] = {}

    @property
    def bare_accuracy(self) -> float | None:
        """Of the baseline without noise, on all pairs set aside."""
        return self._bare.get(self._tune.pairs)

    def run(self, stopped: Callable[[], bool]) -> list[Tried]:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        found: dict[str, Tried] = {}
        pruner = optuna.pruners.SuccessiveHalvingPruner(
            min_resource=1, reduction_factor=self._tune.reduction, min_early_stopping_rate=0
        )
        search = optuna.create_study(direction="maximize", pruner=pruner)
        for number, (combination, goal) in enumerate(_candidates(self._study, self._tune).values()):
            if stopped():
                raise JobError(
                    "tune was stopped before it had chosen", remedy="run the same command again to resume"
                )
            asked = search.ask({"run": optuna.distributions.IntDistribution(number, number)})
            for step, pairs in enumerate(self._rounds(), start=1):
                found[combination.label] = tried = self._try(combination, goal, pairs)
                asked.report(self._value(tried), self._tune.reduction ** (step - 1))
                if asked.should_prune():
                    search.tell(asked, state=optuna.trial.TrialState.PRUNED)
                    break
            else:
                search.tell(asked, self._value(found[combination.label]))
        return sorted(found.values(), key=lambda each: (not each.within, -each.pairs, -each.share))

    def _rounds(self) -> Iterator[int]:
        """Pairs of each round."""
        pairs = self._tune.first
        while pairs < self._tune.pairs:
            yield pairs
            pairs *= self._tune.reduction
        yield self._tune.pairs

    def _value(self, tried: Tried) -> float:
        return tried.share if tried.within else tried.share - 1.0

    def _try(self, combination: Combination, goal: Target, pairs: int) -> Tried:
        part = PartSection(set_aside=self._tune.pairs, use="set_aside", first=pairs)
        run = RunDirectory.open(self._trial(on_part(combination, part)))
        figures = _figures(run, goal)
        if combination.settings == self._study.of(self._study.baseline).settings:
            self._bare[pairs] = figures["bare"]
        accuracy, bare = figures["smoothed"], self._bare.get(pairs)
        limits = self._tune.limits
        drop = 0.0 if accuracy is None or bare is None else bare - accuracy
        draws = figures["draws"] or 0.0
        # one pair more or less decides nothing before the last round
        slack = 1e-12 if pairs == self._tune.pairs else 1.0 / pairs + 1e-12
        within = drop <= (inf if limits.accuracy_drop is None else limits.accuracy_drop + slack)
        within = within and draws <= (inf if limits.draws_per_pair is None else limits.draws_per_pair)
        return Tried(combination.label, pairs, figures["goal"] or 0.0, accuracy, draws, within)


def _figures(run: RunDirectory, goal: Target) -> dict[str, float | None]:
    """Goal, accuracies and draws of a run, out of its leaderboard."""
    cosine = "IS NULL" if goal.cosine is None else f"= {goal.cosine!r}::DOUBLE"
    wanted = {
        "goal": f"figure = 'target_certified' AND certificate = '{goal.certificate}' "
        f"AND radius = {goal.radius!r}::DOUBLE AND cosine {cosine}",
        "bare": "figure = 'accuracy' AND subject = 'bare'",
        "smoothed": "figure = 'accuracy' AND subject = 'smoothed'",
        "draws": "figure = 'draws_per_pair'",
    }
    columns = ", ".join(f"max(value) FILTER ({sql}) AS {name}" for name, sql in wanted.items())
    with Query([run]) as query:
        return dict(query.rows(f"SELECT {columns} FROM leaderboard")[0])


def refuse_rows_chosen_on(chosen: Job, trials: list[str]) -> None:
    """Refuse to certify any pair that a trial has seen, in this tuning or in an earlier one, whatever it was called.

    Args:
        chosen: the job that is about to certify.
        trials: run directories of the trials; those of earlier tunings in ``output.runs`` are added.

    Raises:
        JobError: it has such pairs.
    """
    units = list(open_source(chosen.data).units(1 << 62))
    files = {unit.source_uri for unit in units}
    seen = {
        (unit.name, position)
        for run in map(RunDirectory.open, dict.fromkeys([*trials, *_earlier_trials(chosen)]))
        for unit in run.plan()
        # files elsewhere may have the same names; those of this study are the same files, moved
        if unit.source_uri in files or run.info.job.name == _trial_name(chosen)
        for position in range(unit.start, unit.stop)
    }
    mine = {(unit.name, position) for unit in units for position in range(unit.start, unit.stop)}
    if mine & seen:
        name, position = min(mine & seen)
        raise JobError(
            f"tune: {len(mine & seen)} pairs that the choice was made on would be certified, e.g. number {position} of "
            f"'{name}'",
            remedy="keep data.part as 'smoothcert tune' wrote it, and tune.pairs as it was or a multiple of that; or "
            "delete the trials in output.runs, if nothing that they showed had a part in this choice",
        )


def _earlier_trials(chosen: Job) -> list[str]:
    """Run directories of all trials in ``output.runs``: a tuning under another name has seen its pairs too."""
    try:
        runs = find_runs(chosen.output.runs)
    except RunDirectoryError:  # there are none
        return []
    parts = {url: RunDirectory.open(url).info.job.data.part for url in runs}
    return [url for url, part in parts.items() if part is not None and part.use == "set_aside"]


def _trial_name(job: Job) -> str:
    return f"{job.name}-tuning"[:100]
