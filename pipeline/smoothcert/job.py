"""The job file: one validated, frozen description of what to certify, and how.

A job is read from YAML (safe loading), checked here completely, and written back resolved into its run
directory. Every message names the field, the value and the remedy. Credentials never belong in a job:
object stores take them from their usual chain (environment, profile, instance role).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from smoothcert.errors import JobError, did_you_mean
from smoothcert.job_attacks import SUBJECTS, AttackSection
from smoothcert.job_encoder import DEFENCE_NAME, DefenceSection, EncoderSection
from smoothcert.job_paths import resolve_attack, resolve_defence, resolve_encoder, without_place
from smoothcert.job_section import PositiveInt, Probability, Radius, Section
from smoothcert.redaction import refuse_secrets, without_secrets

JOB_SCHEMA_VERSION = 1

Cosine = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class Columns(Section):
    """Where a source keeps what a pair needs: column names, or tar member suffixes' JSON keys."""

    image: str = "image"
    """Parquet: column of image bytes or struct<bytes, path>. Manifest: column of image paths."""
    caption: str = "caption"
    """Column (or JSON key) of the caption: a string or a list of strings."""
    label: str | None = "label"
    """Column (or JSON key) of the class name; null or absent in the data means no label."""
    id: str | None = None
    """Column of a unique key used in pair_id; without it the row number inside the file is used."""


class DataSection(Section):
    """Which pairs."""

    format: Literal["parquet", "webdataset", "manifest"]
    """parquet: images inside. webdataset: tar shards. manifest: CSV, JSONL or Parquet of paths."""
    uri: str | tuple[str, ...]
    """Path, directory or glob, or a list of them; any fsspec URL (s3://, gs://, memory://, file://)."""
    columns: Columns = Columns()
    limit: PositiveInt | None = None
    """Only the first so many pairs, in file order."""
    max_pixels: PositiveInt = 178_956_970
    """Images that declare more pixels than this are refused before they are decoded (decompression bombs)."""

    @property
    def uris(self) -> tuple[str, ...]:
        """The URIs as a tuple, also when one was given."""
        return (self.uri,) if isinstance(self.uri, str) else self.uri


CertificateName = Literal["fcsb", "angular", "class", "caption", "retrieval"]


class Target(Section):
    """A statement to decide for every pair; drawing stops when all targets are decided."""

    certificate: CertificateName
    """fcsb, angular: cosine at a radius. class: prediction unchanged. caption: similarity at a radius.
    retrieval: rank of the own caption at most k."""
    radius: Radius
    """l2 radius in units of [0,1] pixels."""
    cosine: Annotated[float, Field(ge=-1, lt=1)] | None = None
    """Cosine (fcsb, angular: >= 0) or similarity (caption) that must hold."""

    @model_validator(mode="after")
    def _cosine_where_needed(self) -> Target:
        if self.certificate in ("fcsb", "angular", "caption"):
            if self.cosine is None:
                raise ValueError(f"a target on '{self.certificate}' needs 'cosine'; add e.g. cosine: 0.8")
            if self.certificate != "caption" and self.cosine < 0:
                raise ValueError(
                    f"cosine={self.cosine} certifies nothing for '{self.certificate}'; use 0 or more"
                )
        elif self.cosine is not None:
            raise ValueError(f"a target on '{self.certificate}' takes no 'cosine'; remove it")
        return self

    @property
    def name(self) -> str:
        """A short stable label, e.g. ``angular>=0.8@0.25``."""
        cosine = "" if self.cosine is None else f">={self.cosine:g}"
        return f"{self.certificate}{cosine}@{self.radius:g}"


class CertifySection(Section):
    """The noise, the statistics, and what is asked."""

    sigma: Annotated[float, Field(gt=0, le=30, allow_inf_nan=False)]
    """Standard deviation of the noise, in units of [0,1] pixels."""
    alpha: Probability = 0.001
    """Failure probability of each certificate of each row."""
    alpha_futility: Probability = 0.01
    """Failure probability of giving up on a target that does hold; costs results, never soundness."""
    pilot_draws: Annotated[int, Field(ge=2)] = 63
    """Draws that fix directions and the predicted class, then are thrown away (63 and the clean pass make 64)."""
    max_draws: Annotated[int, Field(ge=2)] = 1000
    """Fresh draws per pair: exactly so many without targets, at most so many with them."""
    method: Literal["betting", "empirical_bernstein", "hoeffding"] = "betting"
    """Lower confidence bound for means; adaptive targets need betting (valid at any stopping time)."""
    radii: tuple[Radius, ...] = ()
    """l2 radii at which bounds are stored; default sigma x (0.25, 0.5, 1, 1.5)."""
    cosines: tuple[Cosine, ...] = (0.5, 0.8, 0.9)
    """Cosine thresholds for which certified radii are stored."""
    targets: tuple[Target, ...] = ()
    rivals: PositiveInt = 8
    """Rival classes (or captions) whose margins are measured; the pilot direction bounds the others."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Root of all noise keys of this job."""

    @model_validator(mode="before")
    @classmethod
    def _default_radii(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or data.get("radii") is not None:
            return data
        try:
            sigma = float(data["sigma"])
        except (KeyError, TypeError, ValueError):
            sigma = math.nan
        # a bad sigma is reported as itself, not as radii that nobody wrote; 1.0 stands in until then
        sigma = sigma if 0 < sigma < math.inf else 1.0
        return {**data, "radii": tuple(float(f"{sigma * k:.10g}") for k in (0.25, 0.5, 1.0, 1.5))}

    @field_validator("radii", "cosines")
    @classmethod
    def _strictly_increasing(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values:
            raise ValueError("[] is empty; give at least one number, or leave it out for the default")
        if any(b <= a for a, b in zip(values, values[1:], strict=False)):
            ordered = sorted(set(values))
            raise ValueError(f"{list(values)} is not strictly increasing; write {ordered}")
        return values

    @model_validator(mode="after")
    def _anytime_for_targets(self) -> CertifySection:
        if self.targets and self.method != "betting":
            raise ValueError(
                f"method='{self.method}' is valid only at a fixed number of draws, but targets stop early; "
                "use method: betting or remove the targets"
            )
        return self


class ZeroShotSection(Section):
    """Zero-shot classification: class names and prompt templates."""

    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    prompts: Annotated[tuple[str, ...], Field(min_length=1)] = ("a photo of a {label}",)
    """Templates with {label}; the class feature is the normalised mean over the templates."""

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        doubled = (
            sorted({label for label in labels if labels.count(label) > 1})
            if len(set(labels)) < len(labels)
            else []
        )
        if doubled:
            raise ValueError(f"labels named twice: {doubled}; keep one of each")
        return labels

    @field_validator("prompts")
    @classmethod
    def _has_placeholder(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        for prompt in prompts:
            if "{label}" not in prompt:
                raise ValueError(f"prompt '{prompt}' lacks the placeholder {{label}}")
        return prompts


class RetrievalSection(Section):
    """Text retrieval: the true caption against a fixed pool of captions from the same source."""

    candidates: Annotated[int, Field(ge=2)] = 1000
    k: PositiveInt = 1

    @model_validator(mode="after")
    def _k_below_pool(self) -> RetrievalSection:
        if self.k >= self.candidates:
            raise ValueError(f"k={self.k} must be below candidates={self.candidates}")
        return self


class ExecutorSection(Section):
    """Where the work runs."""

    kind: Literal["local", "ray"] = "local"
    address: str | None = None
    """Ray cluster address; without it RAY_ADDRESS is used, else a cluster is started on this machine."""
    workers: PositiveInt | None = None
    """Ray actors; default one per GPU of the cluster, or one per cpus_per_worker CPUs where it has none, and more as
    nodes join. With an autoscaler, which sees only what is asked for, name the number."""
    cpus_per_worker: Annotated[float, Field(ge=0)] = 1.0
    gpus_per_worker: Annotated[float, Field(ge=0)] | None = None
    """Default 1 where encoder.device is cuda, or auto and the cluster has a GPU when the run begins; else 0."""
    units_in_flight: PositiveInt = 2
    """Units that one worker holds, so that the tail of one overlaps the head of the next."""
    decode_threads: PositiveInt = 1
    lease_s: Annotated[float, Field(gt=0)] = 300.0
    """A worker that makes no draw for so long while it holds units is hung, and is replaced."""
    placement_s: Annotated[float, Field(gt=0)] = 3600.0
    """How long the run waits while the cluster has no place for any worker (an autoscaler may bring nodes)."""
    grace_s: Annotated[float, Field(ge=0)] = 30.0
    """How long a stop (SIGTERM, SIGINT) waits for units in flight before it hands them back."""
    poison_budget: PositiveInt = 2
    """Workers that one pair may cost before it is quarantined."""
    preemption_budget: Annotated[int, Field(ge=0)] = 1000
    """Workers that the cluster may take away before the run gives up."""
    pairs_per_unit: PositiveInt | None = None
    """Default: sized so that a unit is a few minutes of draws."""


class OutputSection(Section):
    """Where results go, and how many bad pairs are acceptable."""

    runs: str = "runs"
    """Directory (any fsspec URL) that holds run directories."""
    run: str | None = None
    """Name of the run directory; default is the job's name and the head of its fingerprint."""
    quarantine_budget: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of quarantined pairs above which the exit code says so."""


class TrackingSection(Section):
    """MLflow."""

    enabled: bool = True
    uri: str | None = None
    """Tracking server; without it MLFLOW_TRACKING_URI, else an SQLite store beside the runs."""
    experiment: str = "smoothcert"


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
    """Attacks made on every pair after it is certified; each is a unit of work of its own."""
    executor: ExecutorSection = ExecutorSection()
    output: OutputSection = OutputSection()
    tracking: TrackingSection = TrackingSection()

    @model_validator(mode="after")
    def _targets_have_what_they_need(self) -> Job:
        needs = {"class": ("zero_shot", self.zero_shot), "retrieval": ("retrieval", self.retrieval)}
        for target in self.certify.targets:
            section, value = needs.get(target.certificate, ("", True))
            if value is None:
                raise ValueError(
                    f"target '{target.name}' needs the section '{section}'; add it or remove the target"
                )
        text_needed = self.zero_shot is not None or self.retrieval is not None
        text_needed = text_needed or any(t.certificate == "caption" for t in self.certify.targets)
        if self.encoder.feature == "pooled" and text_needed:
            raise ValueError(
                "encoder.feature='pooled' has no text space: use feature: projection, or remove "
                "zero_shot, retrieval and caption targets"
            )
        return self

    @field_validator("defences")
    @classmethod
    def _usable_names(cls, defences: dict[str, DefenceSection]) -> dict[str, DefenceSection]:
        for name in defences:
            if name in SUBJECTS or not DEFENCE_NAME.fullmatch(name):
                raise ValueError(
                    f"'{name}' is no name for a defence; use letters, digits, '.', '_' and '-', and neither "
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
            if self.encoder.feature == "pooled" and (texts or attack.target_caption is not None):
                raise ValueError(
                    f"attacks.{number}: encoder.feature='pooled' has no text space; use feature: projection"
                )
        doubled = [attack.attack_id for attack in self.attacks]
        if len(set(doubled)) < len(doubled):
            raise ValueError("attacks: one attack is listed twice with the same settings; keep one")
        return self

    def science(self) -> dict[str, Any]:
        """The parts that determine every certificate: what a fingerprint covers, not where or how fast it runs.

        Attacks and their subjects are no part of it: they change no certificate, and each attack has an identity
        of its own.
        """
        resolved = self.model_dump(mode="json")
        for section in ("attacks", "defences", "executor", "output", "tracking"):
            del resolved[section]
        for speed_only in ("slots", "device", "threads"):
            del resolved["encoder"][speed_only]
        for part in ("model", "purifier", "mapper"):  # their content counts, by the encoder's digest
            if resolved["encoder"][part] is not None:
                resolved["encoder"][part] = without_place(resolved["encoder"][part])
        return resolved

    def to_yaml(self) -> str:
        """The resolved job, every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


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
            f"cannot read the job file '{path}': {exc}", remedy="check the path and that it is UTF-8"
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
        raise _explain(exc, origin) from exc
    refuse_secrets(job.model_dump(mode="json"), origin, unless_at=_MAY_HOLD_A_LOGIN)
    return job


_MAY_HOLD_A_LOGIN = frozenset({"tracking.uri", "executor.address"})
"""Never written anywhere with it; no others: rows, plans and workers need the URL that the run directory shows."""


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise JobError(
            f"--set {override!r} is not of the form a.b=value", remedy="e.g. --set certify.sigma=0.5"
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


def _explain(error: ValidationError, origin: str) -> JobError:
    lines = []
    choices: dict[str, list[str]] = {}
    items = error.errors()
    for item in items:
        if item["type"] == "too_short" and any(
            len(other["loc"]) > len(item["loc"]) and other["loc"][: len(item["loc"])] == item["loc"]
            for other in items
        ):
            continue  # entries that are wrong themselves do not count for pydantic, so this says nothing more
        where = ".".join(str(part) for part in _place(item["loc"])) or "job"
        message = _in_words_of_yaml(item["msg"].removeprefix("Value error, "))
        if item["type"] == "extra_forbidden":
            known = _known_fields(item["loc"][:-1])
            lines.append(
                f"{where}: unknown key{did_you_mean(str(item['loc'][-1]), known)}; known: {', '.join(known)}"
            )
        elif item["type"] == "missing":
            lines.append(f"{where}: missing; add it")
        elif item["type"] == "too_short":
            lines.append(f"{where}: a list of at least {item['ctx']['min_length']} is needed; add to it")
        elif isinstance(item["input"], (dict, list)) or item["type"] == "value_error":
            choices.setdefault(where, []).append(message)
        else:
            choices.setdefault(f"{where}={item['input']!r}", []).append(message)
    for where, (message, *others) in choices.items():
        # a field of several types has a complaint for each
        more = [other.removeprefix("Input should be ") for other in dict.fromkeys(others) if other != message]
        lines.append(" or ".join([f"{where}: {message}", *more]))
    return JobError(
        without_secrets(f"{origin} is not a valid job:\n  " + "\n  ".join(lines)),
        remedy="fix these fields; nothing was started",
    )


def _in_words_of_yaml(message: str) -> str:
    message = message.replace("a valid string", "text in quotes")
    message = re.sub(r"dictionary or instance of \w+", "mapping", message).replace(
        "valid tuple", "valid list"
    )
    return message


def _place(location: Sequence[str | int]) -> Iterator[str | int]:
    """A location without the names that pydantic gives to the types of a field that may have several."""
    model: Any = Job
    several = False
    for part in location:
        if not (several and isinstance(part, str)):
            yield part
        several = False
        if isinstance(part, str):
            field = model.model_fields.get(part) if model is not None else None
            model = _section_in(field.annotation) if field is not None else None
            kinds = set(get_args(field.annotation)) - {type(None)} if field is not None else set()
            several = model is None and len(kinds) > 1


def _known_fields(location: Sequence[str | int]) -> list[str]:
    model: Any = Job
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        found = _section_in(annotation)
        if found is None:
            return []
        model = found
    return list(model.model_fields)


def _section_in(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _section_in(argument)
        if found is not None:
            return found
    return None


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
    schema = Job.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "smoothcert job"
    return schema
