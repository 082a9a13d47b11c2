"""Reading study files: a job, and every combination of what its section ``study`` varies as a job of its own."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from smoothcert.errors import JobError, did_you_mean
from smoothcert.job.explaining import explain
from smoothcert.job.job import BESIDE_CERTIFICATES, Job
from smoothcert.job.json_schema import json_schema_of
from smoothcert.job.naming import short_name
from smoothcert.job.paths import Places
from smoothcert.job.reading import apply_override, make_job, read_mapping, set_field
from smoothcert.job.study import LABEL, StudySection, TrainStep, TuneSection

_LONGEST_VALUE = 24


@dataclass(frozen=True)
class Combination:
    """One run of a study.

    Attributes:
        label: what varies, short, unique in the study.
        settings: the fields that it sets, by dotted name.
        job: the whole job, its paths absolute.
    """

    label: str
    settings: Mapping[str, Any]
    job: Job


@dataclass(frozen=True)
class Study:
    """A study file.

    Attributes:
        name: of the job, and so of the study.
        combinations: its runs, in the order of the file: variants first, then the grid, its last field fastest.
        baseline: label of the combination that others are compared with.
        tune: how to choose among them, where the file says it.
        trainings: jobs with a section ``train``, to be run first and in this order.
        at_once: how many runs share the workers of a Ray cluster; None leaves it to the cluster.
    """

    name: str
    combinations: tuple[Combination, ...]
    baseline: str
    tune: TuneSection | None
    trainings: tuple[Job, ...] = ()
    at_once: int | None = None

    def of(self, label: str) -> Combination:
        """The combination of this label."""
        return next(each for each in self.combinations if each.label == label)


class StudyFile(Job):
    """A job file with the sections of a study, as editors complete it; every combination must be a valid job."""

    study: StudySection
    tune: TuneSection | None = None
    """What ``smoothcert tune`` chooses by."""


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study file and check every combination.

    Args:
        path: a YAML file.
        overrides: ``a.b=value`` settings of the job that all combinations share.

    Raises:
        JobError: the file cannot be read, a field of the job or of a combination is wrong, nothing is varied, or two
            combinations are one run.
    """
    data = read_mapping(path)
    for override in overrides:
        apply_override(data, override)
    origin = str(path)
    if "study" not in data:
        raise JobError(
            f"{origin} has no section 'study'{did_you_mean('study', data)}",
            remedy="add one, e.g. study: {grid: {certify.sigma: [0.25, 0.5]}}; for one run: smoothcert certify",
        )
    section = _section(StudySection, data.pop("study"), "study", origin)
    tune = data.pop("tune", None)
    chooses = None if tune is None else _section(TuneSection, tune, "tune", origin)
    if isinstance(data.get("output"), dict) and data["output"].get("run") is not None:
        raise JobError(
            f"{origin}: output.run='{data['output']['run']}' names one directory, but a study has one for every run",
            remedy="remove it; set output.runs, the directory that holds them all",
        )
    trainings = _trainings(section.train, Path(path).parent)
    places = Places(Path(path).parent, _written(trainings))
    combinations = tuple(_combinations(section, data, origin, places))
    _refuse_repeats(combinations, origin)
    name, baseline = combinations[0].job.name, _baseline(section, combinations, origin)
    return Study(name, combinations, baseline, chooses, trainings, section.at_once)


def _trainings(steps: Sequence[TrainStep], folder: Path) -> tuple[Job, ...]:
    """The jobs of the trainings; each may name what those before it write."""
    jobs: list[Job] = []
    for number, step in enumerate(steps):
        said, file = f"study.train.{number}", folder / step.job
        try:
            data = read_mapping(file)
        except JobError as exc:
            raise JobError(f"{said}: {exc.message}", remedy=exc.remedy) from exc
        for field, value in step.settings.items():
            set_field(data, field, copy.deepcopy(value), f"{said}: {field}")
        job = make_job(data, origin=f"{said}, {file},", places=Places(file.parent, _written(jobs)))
        if job.train is None:
            raise JobError(
                f"{said}: {file} has no section 'train'", remedy="name a file that smoothcert train takes"
            )
        if job.train.out in [each.train.out for each in jobs if each.train is not None]:
            raise JobError(
                f"{said}: train.out='{job.train.out}' is that of a training before it",
                remedy="give each a directory of its own, in settings: {train.out: ...}",
            )
        jobs.append(job)
    return tuple(jobs)


def _written(trainings: Sequence[Job]) -> tuple[Path, ...]:
    """The directories that trainings write to, where they are on this machine."""
    outs = (job.train.out for job in trainings if job.train is not None)
    return tuple(Path(out).resolve() for out in outs if "://" not in out)


def study_json_schema() -> dict[str, Any]:
    """JSON Schema of study files; published as ``schemas/study.v1.json`` for editors."""
    schema = json_schema_of(StudyFile)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "smoothcert study"
    schema["required"] = ["name", "study"]  # what is varied may be missing in the job itself
    return schema


def _section(kind: type[Any], data: Any, name: str, origin: str) -> Any:
    try:
        return kind.model_validate({} if data is None else data)
    except ValidationError as exc:
        raise explain(exc, f"{origin}, section '{name}',", kind) from exc


def _combinations(
    section: StudySection, base: dict[str, Any], origin: str, places: Places
) -> Iterator[Combination]:
    short = _short_names(tuple(section.grid))
    variants: dict[str, dict[str, Any]] = section.variants or {"": {}}
    taken: set[str] = set()
    for variant, fixed in variants.items():
        for point in itertools.product(*(enumerate(values) for values in section.grid.values())):
            settings = dict(fixed)
            words = [variant] if variant else []
            for field, (number, value) in zip(section.grid, point, strict=True):
                settings[field] = value
                words.append(f"{short[field]} {_show(value, number)}")
            label = ", ".join(words)
            while label in taken:
                label = f"{label} again"
            taken.add(label)
            yield Combination(label, settings, _job(base, settings, label, origin, places))


def _job(base: dict[str, Any], settings: Mapping[str, Any], label: str, origin: str, places: Places) -> Job:
    data = copy.deepcopy(base)
    for field, value in settings.items():
        set_field(data, field, copy.deepcopy(value), f"study: {field}")
    return make_job(data, origin=f"{origin}, with {label},", places=places)


def _refuse_repeats(combinations: Sequence[Combination], origin: str) -> None:
    seen: dict[str, Combination] = {}
    for each in combinations:
        same = json.dumps(each.job.model_dump(mode="json", exclude=set(BESIDE_CERTIFICATES)), sort_keys=True)
        other = seen.setdefault(same, each)
        if other is each:
            continue
        if other.job == each.job:
            raise JobError(
                f"{origin}: '{other.label}' and '{each.label}' are the same job", remedy="keep one of them"
            )
        raise JobError(
            f"{origin}: '{other.label}' and '{each.label}' certify the same, and differ in attacks, defences or "
            "answers alone: they would be one run",
            remedy="make one combination of them, with the attacks of both; for other answers write a job of its own, "
            "with another output.run",
        )


def _baseline(section: StudySection, combinations: Sequence[Combination], origin: str) -> str:
    if section.baseline is None:
        return combinations[0].label
    labels = [each.label for each in combinations]
    for label in labels:
        if label == section.baseline or label.startswith(f"{section.baseline}, "):
            return label
    raise JobError(
        f"{origin}: study.baseline='{section.baseline}' is not one of its runs"
        f"{did_you_mean(section.baseline, [*section.variants, *labels])}",
        remedy=f"use one of {', '.join(repr(label) for label in labels[:8])}",
    )


def _short_names(fields: Sequence[str]) -> dict[str, str]:
    """The last part of each name, where it is not that of another field."""
    last = [field.rpartition(".")[2] for field in fields]
    return {
        field: short if last.count(short) == 1 and not short.isdigit() else field
        for field, short in zip(fields, last, strict=True)
    }


def _show(value: Any, number: int) -> str:
    """A value in a label: itself where it is short, else its number in the list."""
    if value is None:
        return "none"
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        text = json.dumps(value) if isinstance(value, bool) else ""
    elif isinstance(value, str):
        text = short_name(value)
    else:
        text = f"{value:g}"
    return (
        text
        if text and len(text) <= _LONGEST_VALUE and LABEL.fullmatch(f"x{text}")
        else f"number {number + 1}"
    )
