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
from smoothcert.job.paths import resolve_answer, resolve_attack, resolve_defence, resolve_encoder
from smoothcert.redaction import refuse_secrets


def load_job(path: str | Path, overrides: Sequence[str] = ()) -> Job:
    """Read, override and validate a job file; its paths to models, parts and code become absolute.

    Args:
        path: a YAML file.
        overrides: ``a.b=value`` settings, the value read as YAML.

    Raises:
        JobError: the file cannot be read, a field is wrong, or what it names is not there.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise JobError(
            f"cannot read the job file '{path}': {exc}", remedy="check the path, and that the file is UTF-8"
        ) from exc
    job = parse_job(text, overrides, origin=str(path))
    folder = Path(path).parent
    return job.model_copy(
        update={
            "encoder": resolve_encoder(job.encoder, folder),
            "defences": {
                name: resolve_defence(section, folder, f"defences.{name}")
                for name, section in job.defences.items()
            },
            "attacks": tuple(
                resolve_attack(section, folder, f"attacks.{number}")
                for number, section in enumerate(job.attacks)
            ),
            "answer": None if job.answer is None else resolve_answer(job.answer, folder),
        }
    )


def parse_job(text: str, overrides: Sequence[str] = (), *, origin: str = "job") -> Job:
    """Like ``load_job``, from the text of a job file; paths stay as they are."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise JobError(f"{origin} is not valid YAML: {exc}", remedy="compare with a file in jobs/") from exc
    if not isinstance(data, dict):
        raise JobError(
            f"{origin} holds {type(data).__name__}, not a mapping of sections",
            remedy="compare with a file in jobs/",
        )
    for override in overrides:
        _apply(data, override)
    try:
        job = Job.model_validate(data)
    except ValidationError as exc:
        raise explain(exc, origin) from exc
    refuse_secrets(job.model_dump(mode="json"), origin, unless_at=_MAY_HOLD_A_LOGIN)
    return job


_MAY_HOLD_A_LOGIN = frozenset({"tracking.uri", "executor.address"})
"""Never written anywhere with it; no others: rows, plans and workers need the URL that the run directory shows."""


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise JobError(
            f"--set {override!r} must have the form a.b=value", remedy="e.g. --set certify.sigma=0.5"
        )
    node: Any = data
    *parents, last = key.strip().split(".")
    for parent in parents:
        if node.get(parent) is None:
            node[parent] = {}
        node = node[parent]
        if not isinstance(node, dict):
            raise JobError(
                f"--set {override!r}: '{parent}' is not a section", remedy="e.g. --set certify.sigma=0.5"
            )
    try:
        node[last] = yaml.safe_load(value)
    except yaml.YAMLError as exc:
        raise JobError(f"--set {override!r}: the value is not valid YAML: {exc}", remedy="quote it") from exc
