"""A job: one validated, frozen description of what to certify, and how.

Credentials never belong in a job: object stores take them from their usual chain (environment, profile, instance
role).
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

import yaml
from pydantic import Field, field_validator, model_validator

from smoothcert.catalogue.certificate import Certificate
from smoothcert.catalogue.certificates import CATALOGUE, of_name
from smoothcert.errors import did_you_mean
from smoothcert.job.answer import AnswerSection
from smoothcert.job.attacks import SUBJECTS, AttackSection
from smoothcert.job.certify import CertifySection
from smoothcert.job.data import DataSection
from smoothcert.job.encoder import DEFENCE_NAME, DefenceSection, EncoderSection
from smoothcert.job.executor import ExecutorSection
from smoothcert.job.json_schema import json_schema_of
from smoothcert.job.output import OutputSection, TrackingSection
from smoothcert.job.paths import without_place
from smoothcert.job.section import Section
from smoothcert.job.texts import RetrievalSection, ZeroShotSection
from smoothcert.job.train import TrainSection

JOB_SCHEMA_VERSION = 1

BESIDE_CERTIFICATES = ("answer", "attacks", "defences", "executor", "output", "tracking", "train")
"""Sections that change no certificate: where and how fast a job runs, and what is done besides, each task of which has
an identity of its own."""


class Job(Section):
    """One certification job."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    data: DataSection
    encoder: EncoderSection
    certify: CertifySection
    zero_shot: ZeroShotSection | None = None
    retrieval: RetrievalSection | None = None
    defences: dict[str, DefenceSection] = {}
    """Encoders to attack beside the certified one, by name: encoder.model behind a purifier, before a mapper."""
    attacks: tuple[AttackSection, ...] = ()
    """Attacks to run on every pair after certification."""
    answer: AnswerSection | None = None
    """Questions to ask a multimodal model about every pair, after certification and attacks."""
    train: TrainSection | None = None
    """What ``smoothcert train`` fits to these data; no other command reads it."""
    executor: ExecutorSection = ExecutorSection()
    output: OutputSection = OutputSection()
    tracking: TrackingSection = TrackingSection()

    @model_validator(mode="after")
    def _targets_have_what_they_need(self) -> Job:
        for target in self.certify.targets:
            section = of_name(target.certificate).quantity.section
            if section and getattr(self, section) is None:
                raise ValueError(
                    f"target '{target.name}' needs the section '{section}'; add it or remove the target"
                )
        text_needed = self.zero_shot is not None or self.retrieval is not None
        text_needed = text_needed or any(t.needs_captions for t in self.certify.targets)
        if self.encoder.feature != "projection" and text_needed:
            raise ValueError(
                f"encoder.feature='{self.encoder.feature}' has no text space: use feature: projection, or remove "
                "zero_shot, retrieval and caption targets"
            )
        return self

    @model_validator(mode="after")
    def _captions_where_needed(self) -> Job:
        if self.data.has_captions:
            return self
        wanted = ["retrieval"] if self.retrieval is not None else []
        wanted += [f"target '{t.name}'" for t in self.certify.targets if t.needs_captions]
        wanted += [
            f"attacks.{number}"
            for number, attack in enumerate(self.attacks)
            if attack.objective in ("caption", "retrieval") or attack.target_caption is not None
        ]
        if wanted:
            column = self.data.columns.caption or "null"
            raise ValueError(
                f"{wanted[0]} needs captions, but the data has none (data.format={self.data.format}, "
                f"data.columns.caption={column}); remove it, or name a column of captions"
            )
        return self

    @field_validator("defences")
    @classmethod
    def _usable_names(cls, defences: dict[str, DefenceSection]) -> dict[str, DefenceSection]:
        for name in defences:
            if name in SUBJECTS or not DEFENCE_NAME.fullmatch(name):
                raise ValueError(
                    f"'{name}' is not a valid defence name; use letters, digits, '.', '_' and '-', and neither "
                    f"{' nor '.join(SUBJECTS)}"
                )
        return defences

    @model_validator(mode="after")
    def _attacks_have_what_they_need(self) -> Job:
        needs = {
            "classification": ("zero_shot", self.zero_shot),
            "retrieval": ("retrieval", self.retrieval),
        }
        for number, attack in enumerate(self.attacks):
            section, value = needs.get(attack.objective, ("", True))
            if value is None:
                raise ValueError(
                    f"attacks.{number}: objective '{attack.objective}' needs the section '{section}'; add it or "
                    "choose another objective"
                )
            subjects = (*SUBJECTS, *self.defences)
            for name in attack.subjects:
                if name not in subjects:
                    raise ValueError(
                        f"attacks.{number}: subject '{name}' is unknown{did_you_mean(name, subjects)}; use one of "
                        f"{', '.join(subjects)}, or name it in defences"
                    )
            texts = attack.objective in ("caption", "retrieval", "classification")
            if self.encoder.feature != "projection" and (texts or attack.target_caption is not None):
                raise ValueError(
                    f"attacks.{number}: encoder.feature='{self.encoder.feature}' has no text space; use feature: "
                    "projection"
                )
        doubled = [attack.attack_id for attack in self.attacks]
        if len(set(doubled)) < len(doubled):
            raise ValueError("attacks: the same attack with the same settings is listed twice; keep one")
        return self

    @model_validator(mode="after")
    def _training_has_what_it_needs(self) -> Job:
        train = self.train
        if train is None:
            return self
        if train.method == "tecoa" and self.zero_shot is None:
            raise ValueError(
                "train.method 'tecoa' needs the section 'zero_shot': its texts guide the training"
            )
        if train.tunes_encoder and (self.encoder.mapper is not None or self.encoder.purifier is not None):
            raise ValueError(
                f"train.method '{train.method}' changes encoder.model alone; remove encoder.purifier and encoder.mapper"
            )
        for part in train.stages:
            if getattr(self.encoder, part, None) is not None:
                raise ValueError(
                    f"encoder.{part} is given, and train.method '{train.method}' makes one; remove it"
                )
        return self

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """Those that rows can have: what a job does not ask for is not counted as vacuous."""
        return tuple(
            each
            for each in CATALOGUE
            if (not each.quantity.section or getattr(self, each.quantity.section) is not None)
            and (not each.switch or getattr(self.certify, each.switch))
        )

    def science(self) -> dict[str, Any]:
        """The parts that determine every certificate: what a fingerprint covers, not where or how fast it runs.

        What is done besides certifying is no part of it (``BESIDE_CERTIFICATES``).
        """
        resolved = self.model_dump(mode="json")
        for section in BESIDE_CERTIFICATES:
            del resolved[section]
        for speed_only in ("slots", "device", "threads"):
            del resolved["encoder"][speed_only]
        for part in ("model", "purifier", "mapper"):  # their content counts, by the encoder's digest
            if resolved["encoder"][part] is not None:
                resolved["encoder"][part] = without_place(resolved["encoder"][part])
        if (moved_from := resolved["data"].pop("moved_from")) is not None:
            resolved["data"]["uri"] = moved_from
        # older runs do not have these fields, and are the same where they say nothing
        for section, later in (
            ("data", "class_names"),
            ("data", "part"),
            ("data", "sample"),
            ("data", "keep"),
            ("encoder", "size"),
            ("certify", "percentile"),
            ("certify", "second_moment"),
        ):
            given = getattr(self, section)
            if getattr(given, later) == type(given).model_fields[later].default:
                del resolved[section][later]
        return resolved

    def to_yaml(self) -> str:
        """The resolved job, every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def fingerprint(job: Job, *, data_digest: str, encoder_digest: str, code_version: str) -> str:
    """Hex digest (64 characters) of everything that determines the numbers of a run."""
    payload = {
        "job": job.science(),
        "data": data_digest,
        "encoder": encoder_digest,
        "code": code_version,
    }
    return hashlib.sha256(json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def job_json_schema() -> dict[str, Any]:
    """JSON Schema of job files; published as ``schemas/job.v1.json`` for editors."""
    schema = json_schema_of(Job)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "smoothcert job"
    return schema
