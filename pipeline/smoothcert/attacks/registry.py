"""Attacks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from smoothcert.attacks.apgd import APGD, APGDSettings
from smoothcert.attacks.attackvlm import AttackVLM, MatchingSettings
from smoothcert.attacks.autoattack import AutoAttack, AutoAttackSettings
from smoothcert.attacks.base import Attack, AttackSettings
from smoothcert.attacks.carlini_wagner import CarliniWagner, CarliniWagnerSettings
from smoothcert.attacks.fab import FAB, FABSettings
from smoothcert.attacks.foa import FOA, FOASettings
from smoothcert.attacks.mattack import MAttack, MAttackSettings
from smoothcert.attacks.norms import Norm
from smoothcert.attacks.pgd import PGD, PGDSettings
from smoothcert.attacks.square import Square, SquareSettings
from smoothcert.errors import JobError, did_you_mean


@dataclass(frozen=True, slots=True)
class AttackEntry:
    """How to make one attack.

    Attributes:
        factory: (name, settings) -> attack.
        settings: its settings dataclass.
        defaults: settings that differ from the dataclass's own defaults.
        summary: one line for people.
        norm: the norm of the published setting, where there is one.
        budget: the budget of the published setting, units of [0,1] pixels, where there is one.
    """

    factory: Callable[[str, Any], Attack[Any]]
    settings: type[AttackSettings]
    summary: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    norm: Norm | None = None
    budget: float | None = None


ATTACKS: Mapping[str, AttackEntry] = MappingProxyType(
    {
        "apgd": AttackEntry(APGD, APGDSettings, "Auto-PGD on the objective's own loss"),
        "apgd-ce": AttackEntry(APGD, APGDSettings, "Auto-PGD on the cross-entropy", {"loss": "ce"}),
        "apgd-dlr": AttackEntry(
            APGD,
            APGDSettings,
            "Auto-PGD on the difference of logits ratio",
            {"loss": "dlr"},
        ),
        "apgd-t": AttackEntry(
            APGD,
            APGDSettings,
            "Auto-PGD on the targeted difference of logits ratio",
            {"loss": "dlr-targeted"},
        ),
        "attackvlm": AttackEntry(
            AttackVLM,
            MatchingSettings,
            "match the feature of a target caption (MF-it) or image (MF-ii)",
            norm="linf",
            budget=8 / 255,
        ),
        "autoattack": AttackEntry(
            AutoAttack, AutoAttackSettings, "worst case per pair over APGD, FAB and Square, in sequence"
        ),
        "cw": AttackEntry(
            CarliniWagner, CarliniWagnerSettings, "Carlini and Wagner's smallest l2 perturbation"
        ),
        "fab": AttackEntry(FAB, FABSettings, "smallest perturbation by steps to the linearised edge"),
        "foa": AttackEntry(
            FOA,
            FOASettings,
            "M-Attack, with clustered patch features matched by optimal transport",
            norm="linf",
            budget=16 / 255,
        ),
        "m-attack": AttackEntry(
            MAttack,
            MAttackSettings,
            "match random crops with crops of a target image, over an ensemble",
            norm="linf",
            budget=16 / 255,
        ),
        "pgd": AttackEntry(PGD, PGDSettings, "projected gradient descent"),
        "square": AttackEntry(Square, SquareSettings, "random search without gradients"),
    }
)


_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)


def make_attack(name: str, **settings: Any) -> Attack[Any]:
    """The attack of that name.

    Args:
        name: a key of ``ATTACKS``.
        settings: fields of its settings dataclass.

    Raises:
        JobError: the name, a setting's name or a value is wrong.
    """
    if name not in ATTACKS:
        raise JobError(
            f"attack '{name}' is unknown{did_you_mean(name, ATTACKS)}",
            remedy=f"use one of: {', '.join(ATTACKS)}",
        )
    entry = ATTACKS[name]
    known = [setting.name for setting in fields(entry.settings)]
    for key in settings:
        if key not in known:
            raise JobError(
                f"attack '{name}' has no setting '{key}'{did_you_mean(key, known)}",
                remedy=f"use some of: {', '.join(known)}",
            )
    hints = get_type_hints(entry.settings)
    for key, value in settings.items():
        try:
            # by its annotation, strictly: "no" is not False, 1.5 is no number of steps, true is not 1
            TypeAdapter(hints[key], config=_STRICT).validate_python(value)
        except ValidationError as exc:
            reason = exc.errors()[0]["msg"]
            raise JobError(
                f"attack '{name}': settings.{key}={value!r} does not fit: {reason[:1].lower()}{reason[1:]}",
                remedy=f"its default is {_default(entry, key)!r}",
            ) from exc
    try:
        made = entry.settings(**{**entry.defaults, **settings})
    except JobError as exc:
        raise JobError(f"attack '{name}': settings.{exc.message}", remedy=exc.remedy) from exc
    return entry.factory(name, made)


def _default(entry: AttackEntry, key: str) -> Any:
    own = next(setting.default for setting in fields(entry.settings) if setting.name == key)
    return entry.defaults.get(key, own)
