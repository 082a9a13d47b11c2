"""``run.json``: what a run directory is about, and how another job differs from it."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from typing import Any

from pydantic import ValidationError

from smoothcert.errors import RunDirectoryError
from smoothcert.job import Job, fingerprint
from smoothcert.job.naming import variant
from smoothcert.job.section import STORED
from smoothcert.redaction import redact
from smoothcert.store.tables.registry import TABLES

RUN_FORMAT = 2
"""Version of run.json and of the directory's layout. In 1, commits of attacks counted no rows: who reads 1 alone would
take those of 2 for certified pairs."""
_READ = (1, RUN_FORMAT)
_RUN_ID = re.compile(r"[A-Za-z0-9._-]+")
_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "scipy", "pillow", "pyarrow")
"""Another version of these may round otherwise; it makes no other run, but it should be known."""


@dataclass(frozen=True)
class RunIdentity:
    """Everything that determines the numbers of a run.

    Attributes:
        job: the validated job.
        data_digest: hex digest of the pairs.
        encoder_digest: hex digest of the encoder.
        code_version: version of smoothcert.
    """

    job: Job
    data_digest: str
    encoder_digest: str
    code_version: str

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of all of it (64 characters)."""
        return fingerprint(
            self.job,
            data_digest=self.data_digest,
            encoder_digest=self.encoder_digest,
            code_version=self.code_version,
        )


@dataclass(frozen=True)
class RunInfo:
    """The content of ``run.json``.

    Attributes:
        run_id: unique name of this directory's run, also in every row.
        fingerprint: of the identity.
        job: the resolved job, credentials in URLs taken out.
        data_digest: hex digest of the pairs.
        encoder_digest: hex digest of the encoder.
        code_version: version of smoothcert that made the directory.
        created: when, ISO 8601 in UTC.
        plan: file of the plan, below the directory.
        units: units in the plan.
        pairs: pairs in the plan.
        tables: version of each table's schema.
        libraries: version of each library that numbers pass through, where the directory was made; empty in
            directories made before version 0.2.
    """

    run_id: str
    fingerprint: str
    job: Job
    data_digest: str
    encoder_digest: str
    code_version: str
    created: str
    plan: str
    units: int
    pairs: int
    tables: Mapping[str, int]
    libraries: Mapping[str, str]

    @classmethod
    def new(cls, identity: RunIdentity, *, plan: str, units: int, pairs: int) -> RunInfo:
        """What is written into a new directory."""
        return cls(
            run_id=f"{run_name(identity)}-{uuid.uuid4().hex[:6]}",
            fingerprint=identity.fingerprint,
            job=_without_credentials(identity.job),
            data_digest=identity.data_digest,
            encoder_digest=identity.encoder_digest,
            code_version=identity.code_version,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            plan=plan,
            units=units,
            pairs=pairs,
            tables={name: table.version for name, table in TABLES.items()},
            libraries={name: version(name) for name in _LIBRARIES},
        )

    def to_json(self) -> bytes:
        """The text of ``run.json``; what every reader needs stands at the top."""
        certify = self.job.certify
        data = {
            "format": RUN_FORMAT,
            "run_id": self.run_id,
            "name": self.job.name,
            "fingerprint": self.fingerprint,
            "data_digest": self.data_digest,
            "encoder_digest": self.encoder_digest,
            "code_version": self.code_version,
            "created": self.created,
            "sigma": certify.sigma,
            "alpha": certify.alpha,
            "radii": list(certify.radii),
            "cosines": list(certify.cosines),
            "targets": [target.name for target in certify.targets],
            "plan": self.plan,
            "units": self.units,
            "pairs": self.pairs,
            "tables": dict(self.tables),
            "libraries": dict(self.libraries),
            "job": self.job.model_dump(mode="json"),
        }
        return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, text: bytes, origin: str) -> RunInfo:
        """Read ``run.json``.

        Raises:
            RunDirectoryError: it is damaged, or made by a newer version of smoothcert.
        """
        try:
            data: dict[str, Any] = json.loads(text)
            if data["format"] not in _READ:
                raise RunDirectoryError(
                    f"'{origin}' has format {data['format']}; this version reads up to {RUN_FORMAT}",
                    remedy="use the version of smoothcert that wrote it: "
                    + str(data.get("code_version", "unknown")),
                )
            names = (
                "run_id",
                "fingerprint",
                "data_digest",
                "encoder_digest",
                "code_version",
                "created",
                "plan",
            )
            if not _RUN_ID.fullmatch(data["run_id"]):
                raise ValueError(
                    f"run_id {data['run_id']!r:.60} has other characters than letters, digits, '.', '_', '-'"
                )
            info = cls(
                **{name: data[name] for name in names},
                units=data["units"],
                pairs=data["pairs"],
                tables=data["tables"],
                libraries=data.get("libraries", {}),
                job=Job.model_validate(data["job"], context=STORED),
            )
        except (ValueError, KeyError, TypeError, ValidationError) as exc:
            raise RunDirectoryError(
                f"'{origin}' is damaged: {exc}",
                remedy="restore it from a backup, or start a new run directory",
            ) from exc
        for name, number in info.tables.items():
            known = TABLES.get(name)
            if known is not None and number > known.version:
                raise RunDirectoryError(
                    f"'{origin}': table '{name}' has version {number}; this version reads up to "
                    f"{known.version}",
                    remedy="use a newer version of smoothcert",
                )
        return info

    def differences(self, identity: RunIdentity) -> list[str]:
        """What makes another identity another run: one line each, old value first."""
        if identity.fingerprint == self.fingerprint:
            return []
        lines = [
            f"{key}: {old} here, {new} now"
            for key, old, new in changed_fields(self.job, _without_credentials(identity.job))
        ]
        for what, old, new in (
            ("the data", self.data_digest, identity.data_digest),
            ("the encoder", self.encoder_digest, identity.encoder_digest),
            ("the code version", self.code_version, identity.code_version),
        ):
            if old != new:
                lines.append(f"{what}: {old[:16]} here, {new[:16]} now")
        return lines or ["credentials in URLs, or a field that this version of smoothcert added"]

    @property
    def place(self) -> str:
        """Where the data was when the run was begun, as a value of ``data.moved_from``."""
        data = self.job.science()["data"]
        return json.dumps(data["uri"], ensure_ascii=False)

    def is_elsewhere(self, identity: RunIdentity) -> bool:
        """Whether another identity differs in the place of its data alone, as far as digests tell."""
        moved = identity.job.data.model_copy(update={"moved_from": self.job.data.uri})
        there = RunIdentity(
            identity.job.model_copy(update={"data": moved}),
            identity.data_digest,
            identity.encoder_digest,
            identity.code_version,
        )
        return there.fingerprint == self.fingerprint != identity.fingerprint


_ABSENT = object()


def changed_fields(first: Job, second: Job) -> list[tuple[str, str, str]]:
    """What two jobs say differently of that which determines numbers: field, and both values as JSON or ``absent``."""
    ours, theirs = _flat(first.science()), _flat(second.science())
    return [
        (key, _show(ours.get(key, _ABSENT)), _show(theirs.get(key, _ABSENT)))
        for key in [*ours, *(key for key in theirs if key not in ours)]
        if ours.get(key, _ABSENT) != theirs.get(key, _ABSENT)
    ]


def run_name(identity: RunIdentity) -> str:
    """Name of the run directory where the job gives none: the job's, what varies, and the head of its fingerprint."""
    return f"{identity.job.name}-{variant(identity.job)}-{identity.fingerprint[:8]}"


def _show(value: object) -> str:
    return "absent" if value is _ABSENT else json.dumps(value, ensure_ascii=False)


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    return dict(_leaves(data, prefix))


def _leaves(data: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _without_credentials(job: Job) -> Job:
    """The job with credentials taken out of URLs: a run directory is shared, credentials are not."""
    data = job.model_dump(mode="json")
    cleaned = redact(data)
    return job if cleaned == data else Job.model_validate(cleaned, context=STORED)
