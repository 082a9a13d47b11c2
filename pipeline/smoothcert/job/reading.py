"""Reading job files: YAML (safe loading), overrides, and a complete check before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from smoothcert.errors import JobError
from smoothcert.job.explaining import explain
from smoothcert.job.job import Job
from smoothcert.job.paths import Places, resolve_answer, resolve_attack, resolve_defence, resolve_encoder
from smoothcert.job.repeated_keys import OneOfEachKey, RepeatedKeyError
from smoothcert.redaction import refuse_secrets


def load_job(path: str | Path, overrides: Sequence[str] = (), promised: Sequence[Path] = ()) -> Job:
    """Read, override and validate a job file; its paths to models, parts and code become absolute.

    Args:
        path: a YAML file.
        overrides: ``a.b=value`` settings, the value read as YAML.
        promised: directories that will be there when the job runs.

    Raises:
        JobError: the file cannot be read, a field is wrong, or what it names is not there.
    """
    data = read_mapping(path)
    for override in overrides:
        apply_override(data, override)
    if "study" in data:
        raise JobError(
            f"{path} describes a study: several runs, by its section 'study'",
            remedy=f"smoothcert study {path}",
        )
    return make_job(data, origin=str(path), places=Places(Path(path).parent, tuple(promised)))


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The sections of a job file, unchecked.

    Raises:
        JobError: the file cannot be read, or is no YAML mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise JobError(
            f"cannot read the job file '{path}': {exc}", remedy="check the path, and that the file is UTF-8"
        ) from exc
    return _mapping(text, str(path))


def make_job(data: dict[str, Any], *, origin: str, places: Places) -> Job:
    """The job of such sections, its paths absolute.

    Args:
        data: as ``read_mapping`` gives it.
        origin: what errors call it.
        places: where relative paths lead.

    Raises:
        JobError: a field is wrong, or what it names is not there.
    """
    job = _validated(data, origin)
    return job.model_copy(
        update={
            "encoder": resolve_encoder(job.encoder, places),
            "defences": {
                name: resolve_defence(section, places, f"defences.{name}")
                for name, section in job.defences.items()
            },
            "attacks": tuple(
                resolve_attack(section, places, f"attacks.{number}")
                for number, section in enumerate(job.attacks)
            ),
            "answer": None if job.answer is None else resolve_answer(job.answer, places),
        }
    )


def parse_job(text: str, overrides: Sequence[str] = (), *, origin: str = "job") -> Job:
    """Like ``load_job``, from the text of a job file; paths stay as they are."""
    data = _mapping(text, origin)
    for override in overrides:
        apply_override(data, override)
    return _validated(data, origin)


def _mapping(text: str, origin: str) -> dict[str, Any]:
    try:
        data = yaml.load(text, Loader=OneOfEachKey)
    except RepeatedKeyError as exc:
        raise JobError(f"{origin}: {exc}", remedy="keep one of them, or give them different names") from exc
    except yaml.YAMLError as exc:
        raise JobError(f"{origin} is not valid YAML: {exc}", remedy="compare with a file in jobs/") from exc
    if not isinstance(data, dict):
        raise JobError(
            f"{origin} holds {type(data).__name__}, not a mapping of sections",
            remedy="compare with a file in jobs/",
        )
    return data


def _validated(data: dict[str, Any], origin: str) -> Job:
    try:
        job = Job.model_validate(data)
    except ValidationError as exc:
        raise explain(exc, origin) from exc
    refuse_secrets(job.model_dump(mode="json"), origin, unless_at=_MAY_HOLD_A_LOGIN)
    return job


_MAY_HOLD_A_LOGIN = frozenset({"tracking.uri", "executor.address"})
"""Never written anywhere with it; no others: rows, plans and workers need the URL that the run directory shows."""


def apply_override(data: dict[str, Any], override: str) -> None:
    """Set a field of a job's sections by the text ``a.b=value``.

    Raises:
        JobError: it has another form, or goes through something that is no section.
    """
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise JobError(
            f"--set {override!r} must have the form a.b=value", remedy="e.g. --set certify.sigma=0.5"
        )
    try:
        read = yaml.load(value, Loader=OneOfEachKey)
    except RepeatedKeyError as exc:
        raise JobError(f"--set {override!r}: {exc}", remedy="keep one of them") from exc
    except yaml.YAMLError as exc:
        raise JobError(f"--set {override!r}: the value is not valid YAML: {exc}", remedy="quote it") from exc
    set_field(data, key.strip(), read, f"--set {override!r}")


def set_field(data: dict[str, Any], name: str, value: Any, said: str) -> None:
    """Set a field of a job's sections by its dotted name; entries of lists count from 0, as in ``attacks.0.steps``.

    Args:
        data: sections, changed in place.
        name: of the field.
        value: of the field.
        said: what errors begin with.

    Raises:
        JobError: the name goes through something that is no section, or an entry that is not there.
    """
    node: Any = data
    *parents, last = name.split(".")
    for parent in parents:
        if isinstance(node, dict):
            if node.get(parent) is None:
                node[parent] = {}
            node = node[parent]
        else:
            node = node[_entry(node, parent, said)]
        if not isinstance(node, (dict, list)):
            raise JobError(f"{said}: '{parent}' is not a section", remedy="e.g. --set certify.sigma=0.5")
    node[last if isinstance(node, dict) else _entry(node, last, said)] = value


def _entry(entries: list[Any], number: str, said: str) -> int:
    if not number.isdigit() or int(number) >= len(entries):
        raise JobError(
            f"{said}: '{number}' is not in a list of {len(entries)}", remedy="count entries from 0"
        )
    return int(number)
