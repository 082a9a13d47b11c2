"""The section ``attacks`` of a job: which attacks are made on every pair, and what counts as their success.

Names are checked here, so that a misspelt one fails before anything is loaded; whether an attack can pursue its
objective on this encoder and source is checked before work starts (``work/attack/attacker.py``).
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from smoothcert.catalogue.attacks import ATTACKS, Norm
from smoothcert.errors import did_you_mean
from smoothcert.job.encoder import EncoderSection
from smoothcert.job.section import PositiveInt, Probability, Section

if TYPE_CHECKING:
    AttackName = str
else:
    AttackName = Literal[tuple(ATTACKS)]
ObjectiveName = Literal["caption", "classification", "divergence", "matching", "retrieval"]
ReferenceName = Literal["clean", "smoothed", "label", "predicted"]

SUBJECTS = ("bare", "smoothed")
"""Subjects of every job; the names of its defences come on top."""

ENSEMBLES = tuple(name for name, entry in ATTACKS.items() if entry.ensemble)
"""Attacks whose gradients come from any number of surrogates."""

PUBLISHED: dict[str, tuple[Norm, float]] = {
    name: (entry.norm, entry.budget)
    for name, entry in ATTACKS.items()
    if entry.norm is not None and entry.budget is not None
}
"""Attacks that were published with one norm and budget, which are the defaults."""

THRESHOLDS = {"divergence": 0.5, "caption": 0.0}
"""Objectives whose success is a cosine below a threshold, with their defaults."""

EOT_DRAWS = 64
"""Draws a step below which gradients are so noisy that attacks look weak (docs/theory.md section 5)."""
EVALUATE_DRAWS = 1000
"""Draws below which an outcome is judged loosely (docs/theory.md section 5)."""

REFERENCES: dict[str, tuple[ReferenceName, ...]] = {
    "divergence": ("clean", "smoothed"),
    "classification": ("label", "predicted"),
}
"""Objectives that can leave one of several things, the default first."""


def known_name(what: str, kind: Any) -> BeforeValidator:
    """Refuses an unknown name with the nearest known one."""
    names = get_args(kind)

    def check(value: Any) -> Any:
        if isinstance(value, str) and value not in names:
            raise ValueError(
                f"{what} '{value}' is unknown{did_you_mean(value, names)}; use one of {', '.join(names)}"
            )
        return value

    return BeforeValidator(check)


def one_or_several(value: Any) -> Any:
    """One value stands for a list of one."""
    return (value,) if isinstance(value, (str, int, float)) else value


def _no_flag(value: Any) -> Any:
    """Python takes true for 1."""
    if isinstance(value, bool):
        raise ValueError(f"{value} is not a number; use a positive number in units of [0,1] pixels")
    return value


def _published_schema(schema: dict[str, Any]) -> None:
    """Editors are to miss norm and budgets where there is no default only."""
    schema["required"] = [name for name in schema["required"] if name not in ("norm", "budgets")]
    published = {"properties": {"attack": {"enum": list(PUBLISHED)}}}
    schema |= {"if": published, "else": {"required": ["norm", "budgets"]}}


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError(
            f"budget={value:g} is not a valid size; it must be a positive number in units of [0,1] pixels"
        )
    return value


Budget = Annotated[float, BeforeValidator(_no_flag), Field(allow_inf_nan=False)]


class AttackSection(Section):
    """One attack, at one or more budgets, on one or more subjects. The same pairs serve every subject."""

    model_config = ConfigDict(json_schema_extra=_published_schema)

    attack: Annotated[AttackName, known_name("attack", AttackName)]
    """How to search; what each one does is listed in catalogue/attacks.py."""
    norm: Annotated[Norm, known_name("norm", Norm)]
    """Of the budget. Certificates are about l2; an l-infinity outcome is never shown as certified. attackvlm, m-attack
    and foa may leave it out: linf."""
    budgets: Annotated[tuple[Budget, ...], BeforeValidator(one_or_several), Field(min_length=1)]
    """Largest norms of a perturbation, in units of [0,1] pixels: one number or a list. The published ones may be left
    out: 8/255 of attackvlm, 16/255 of m-attack and foa."""
    objective: Annotated[ObjectiveName, known_name("objective", ObjectiveName)] = "divergence"
    """divergence: away from the clean feature. classification: another class wins (needs zero_shot and labels).
    caption: away from the own caption. retrieval: the own caption loses its rank (needs retrieval).
    matching: the target is nearer than the own caption (for a target caption) or the clean image."""
    reference: Annotated[ReferenceName, known_name("reference", ReferenceName)] | None = None
    """What the objective leaves. For divergence clean: the feature without noise (the default), or smoothed: the
    subject's own feature of the clean image, which the angular certificate is about. For classification label (the
    default), or predicted: the class that the subject predicts without attack, by draws of its own, as a rule that
    of the class certificate; it needs no labels."""
    subjects: Annotated[tuple[str, ...], BeforeValidator(one_or_several), Field(min_length=1)] = SUBJECTS
    """bare: the encoder as it is. smoothed: its mean under noise of certify.sigma, by expectation over draws. The
    name of a defence: the same mean of encoder.model behind that defence."""
    surrogates: tuple[EncoderSection, ...] = ()
    """Encoders that the search sees in place of the subject's own (transfer); outcomes are judged on the subject. One,
    searched as the subject is (bare or under noise); for m-attack and foa an ensemble of any size."""
    bpda: bool = False
    """Gradients pass the purifier as though it changed nothing (BPDA, Athalye et al. 2018): where that makes an attack
    stronger, the purifier hides gradients. What is asked and judged is the whole subject all the same."""
    steps: PositiveInt | None = None
    """Steps per start; by default the attack's own."""
    restarts: PositiveInt | None = None
    """Random restarts for pairs not yet solved; by default the attack's own."""
    eot_draws: PositiveInt = EOT_DRAWS
    """Noise draws averaged per gradient on a smoothed subject; too few overstate robustness."""
    evaluate_draws: Annotated[int, Field(ge=8)] = EVALUATE_DRAWS
    """Fresh draws that judge the result on a smoothed subject; below 1,000 the bounds are wide."""
    alpha: Probability = 0.001
    """Failure probability of each confidence bound of an attacked cosine."""
    threshold: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Cosine below which divergence (default 0.5) or caption (default 0) counts as a success."""
    target_caption: str | None = None
    """For matching: the text whose feature all pairs are pushed towards."""
    target_image: str | None = None
    """For matching: path or URL of the image that all pairs are pushed towards."""
    settings: dict[str, str | bool | int | float | tuple[float, ...] | None] = {}
    """Further settings of the attack by name, e.g. early_stop: false to go on searching after success."""
    contents: dict[str, str] = {}
    """SHA-256 of what this section names: target_image, surrogates.<i>, and the defences among the subjects. Filled in
    when work starts; where a job gives one, anything else is refused."""
    keep: Annotated[int, Field(ge=0)] = 0
    """Number of strongest examples to store, with thumbnails, per subject and budget."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Root of the noise keys of searching and judging; their streams are disjoint from certification's."""

    @model_validator(mode="before")
    @classmethod
    def _budget_or_budgets(cls, data: Any) -> Any:
        if isinstance(data, dict) and "budget" in data:
            if "budgets" in data:
                raise ValueError("budget and budgets are both given; keep one")
            data = {("budgets" if key == "budget" else key): value for key, value in data.items()}
        return data

    @model_validator(mode="before")
    @classmethod
    def _as_published(cls, data: Any) -> Any:
        name = data.get("attack") if isinstance(data, dict) else None
        if isinstance(name, str) and name in PUBLISHED:
            norm, budget = PUBLISHED[name]
            data = {"norm": norm} | data
            if data["norm"] == norm and "budget" not in data:
                data = {"budgets": budget} | data
        return data

    @field_validator("budgets", "subjects")
    @classmethod
    def _distinct(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        for value in values:
            if isinstance(value, float):
                _positive(value)
        if len(set(values)) < len(values):
            raise ValueError(f"{list(values)} lists one more than once; keep one of each")
        return values

    @model_validator(mode="after")
    def _objective_has_what_it_needs(self) -> AttackSection:
        targets = [name for name in ("target_caption", "target_image") if getattr(self, name) is not None]
        if self.objective == "matching" and len(targets) != 1:
            raise ValueError("objective 'matching' needs a target: add either target_caption or target_image")
        if self.objective != "matching" and targets:
            raise ValueError(f"objective '{self.objective}' does not take {targets[0]}; remove it")
        if self.threshold is not None and self.objective not in THRESHOLDS:
            raise ValueError(f"objective '{self.objective}' does not take a threshold; remove it")
        if len(self.surrogates) > 1 and self.attack not in ENSEMBLES:
            raise ValueError(
                f"attack '{self.attack}' searches one surrogate, not {len(self.surrogates)}; use one section for each, "
                f"or one of {', '.join(ENSEMBLES)}"
            )
        references = REFERENCES.get(self.objective, ())
        if self.reference is not None and self.reference not in references:
            usable = f"use {' or '.join(references)}" if references else "remove it"
            raise ValueError(f"objective '{self.objective}' takes no reference '{self.reference}'; {usable}")
        if self.bpda and self.surrogates:
            raise ValueError(
                "bpda and surrogates are both given: a surrogate has its own gradients; use one section for each"
            )
        if "surrogates" in self.settings:
            raise ValueError(
                "settings.surrogates is not a setting; list the encoders in surrogates, next to settings"
            )
        return self

    @property
    def resolved_threshold(self) -> float | None:
        """Cosine below which the attack has succeeded, where the objective has one."""
        return THRESHOLDS.get(self.objective) if self.threshold is None else self.threshold

    @property
    def resolved_reference(self) -> str | None:
        """What the objective leaves, where there is a choice."""
        return self.reference or next(iter(REFERENCES.get(self.objective, ())), None)

    @property
    def target(self) -> str | None:
        """What all pairs are pushed towards, where there is such a thing."""
        return self.target_image if self.target_caption is None else self.target_caption

    @property
    def defences(self) -> tuple[str, ...]:
        """The subjects that are defences."""
        return tuple(name for name in self.subjects if name not in SUBJECTS)

    @property
    def attack_id(self) -> str:
        """Eight hex digits that name everything here that determines a row, budgets and subjects included.

        Changing any of it makes another attack, whose rows stand beside the old ones. What is known by its content
        counts by that, wherever it is kept.
        """
        what = self.model_dump(mode="json", exclude={"keep"})
        if self.resolved_reference == next(iter(REFERENCES.get(self.objective, ())), None):
            del what["reference"]  # the default, named or not, is one attack
        if not self.bpda:
            del what["bpda"]
        if "target_image" in self.contents:
            del what["target_image"]
        if "surrogates.0" in self.contents:
            del what["surrogates"]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:8]
