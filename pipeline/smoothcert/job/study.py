"""The sections ``study`` and ``tune`` of a study file: a job, and what is varied in it.

Every combination is a job of its own, checked like any other; ``job/study_reading.py`` makes them.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from smoothcert.errors import did_you_mean
from smoothcert.job.certify import Target
from smoothcert.job.section import PositiveInt, Section

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,79}")
_FIELD = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
_OTHERS = ("executor", "name", "output", "tracking", "study", "tune")
"""What no combination can vary: it changes no number."""


class TrainStep(Section):
    """One training of a study: a job file with a section ``train``, and what is different in it."""

    job: str
    """The file, relative to the study file."""
    settings: dict[str, Any] = {}
    """Fields by dotted name and their values, e.g. ``{train.method: noise, train.out: demo/noise}``."""


class StudySection(Section):
    """What is varied. Every variant is combined with every point of the grid, and each combination is a run."""

    variants: dict[str, dict[str, Any]] = {}
    """Settings by name, e.g. ``purified: {encoder.purifier: my/purifier.safetensors}``: the dotted name of a field and
    its value. {} is the job as it stands."""
    grid: dict[str, tuple[Any, ...]] = {}
    """Values of a field by its dotted name, e.g. ``certify.sigma: [0.25, 0.5]``: every combination of them."""
    baseline: str | None = None
    """The run that others are compared with, pair by pair: a variant, or the whole name of a combination. By default
    the first one."""
    train: tuple[TrainStep, ...] = ()
    """Trainings, one after the other, before the first run: combinations and later trainings may name what they write.
    One that is done is not done again."""
    at_once: PositiveInt | None = None
    """Runs that share the workers of executor.kind: ray at any time. Default one for each worker, at most 8. Without
    Ray one after the other."""

    @model_validator(mode="before")
    @classmethod
    def _empty_means_nothing(cls, data: Any) -> Any:
        """``{}`` and nothing at all are the same behind a colon."""
        if isinstance(data, dict) and isinstance(data.get("variants"), dict):
            settings = {name: {} if value is None else value for name, value in data["variants"].items()}
            return {**data, "variants": settings}
        return data

    @field_validator("variants")
    @classmethod
    def _usable_names(cls, variants: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, settings in variants.items():
            if not LABEL.fullmatch(name):
                raise ValueError(
                    f"'{name}' is not a valid variant name; use letters, digits, spaces and . _ + -"
                )
            for field in settings:
                _check_field(field)
        return variants

    @field_validator("grid")
    @classmethod
    def _something_to_vary(cls, grid: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        for field, values in grid.items():
            _check_field(field)
            if not values:
                raise ValueError(f"{field}: [] is empty; list at least one value, or remove the field")
            for number, value in enumerate(values):
                if value in values[:number]:
                    raise ValueError(f"{field}: {value!r} is listed twice; keep one")
        return grid

    @model_validator(mode="after")
    def _not_empty(self) -> StudySection:
        if not self.variants and not self.grid:
            raise ValueError(
                "varies nothing: give variants (settings by name), a grid (values by field), or both"
            )
        for name, settings in self.variants.items():
            for field in settings:
                if field in self.grid:
                    raise ValueError(
                        f"variant '{name}' sets {field}, which the grid varies; keep one of them"
                    )
        return self


class Limits(Section):
    """What a choice must keep to, on the tuning pairs."""

    accuracy_drop: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest loss of accuracy without attack: of the smoothed encoder against the bare one of the baseline."""
    draws_per_pair: PositiveInt | None = None
    """Most draws a pair takes on average, pilot draws included."""


class TuneSection(Section):
    """The goal of ``smoothcert tune``: which combination of the study certifies the most pairs within the limits."""

    goal: Target | Annotated[tuple[Target, ...], Field(min_length=1)]
    """What most pairs shall be certified for, e.g. ``{certificate: angular, cosine: 0.8, radius: 0.25}``. Of several
    that would do (``class`` or ``vote`` at one radius) each is tried with every combination, and the best is chosen."""
    limits: Limits = Limits()
    pairs: Annotated[int, Field(ge=8)] = 64
    """Pairs that are set aside to choose on, spread over the data; the others are certified with the choice."""
    first: PositiveInt = 16
    """Pairs that every combination is tried on; the best go on with ``reduction`` times as many."""
    reduction: Annotated[int, Field(ge=2)] = 2
    """Of each round, one in so many goes on to the next."""

    @property
    def goals(self) -> tuple[Target, ...]:
        """All that would do."""
        return self.goal if isinstance(self.goal, tuple) else (self.goal,)

    @model_validator(mode="after")
    def _rounds(self) -> TuneSection:
        if self.first > self.pairs:
            raise ValueError(f"first={self.first} is more than pairs={self.pairs}; lower it")
        return self

    @model_validator(mode="after")
    def _no_goal_twice(self) -> TuneSection:
        for number, goal in enumerate(self.goals):
            if goal in self.goals[:number]:
                raise ValueError(f"goal: '{goal.name}' is listed twice; keep one")
        return self


def _check_field(field: str) -> None:
    section = field.partition(".")[0]
    if not _FIELD.fullmatch(field):
        raise ValueError(f"'{field}' is not a field; write its dotted name, e.g. certify.sigma")
    if section in _OTHERS:
        raise ValueError(f"'{field}' changes no result, so it cannot be varied; set it in the job itself")
    known = ("answer", "attacks", "certify", "data", "defences", "encoder", "retrieval", "zero_shot")
    if section not in known:
        raise ValueError(f"'{field}' is not a field of a job{did_you_mean(section, known)}")
