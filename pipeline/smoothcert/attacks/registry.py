"""Attacks by name: from an entry of the catalogue to the attack."""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from smoothcert.attacks.base import Attack, AttackSettings
from smoothcert.catalogue.attacks import ATTACKS, AttackEntry
from smoothcert.errors import JobError, did_you_mean

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
    kind = settings_type(name)
    known = [setting.name for setting in fields(kind)]
    for key in settings:
        if key not in known:
            raise JobError(
                f"attack '{name}' has no setting '{key}'{did_you_mean(key, known)}",
                remedy=f"known settings: {', '.join(known)}",
            )
    hints = get_type_hints(kind)
    for key, value in settings.items():
        try:
            # by its annotation, strictly: "no" is not False, 1.5 is no number of steps, true is not 1
            TypeAdapter(hints[key], config=_STRICT).validate_python(value)
        except ValidationError as exc:
            reason = exc.errors()[0]["msg"]
            raise JobError(
                f"attack '{name}': settings.{key}={value!r} is not valid: {reason[:1].lower()}{reason[1:]}",
                remedy=f"its default is {_default(entry, kind, key)!r}",
            ) from exc
    try:
        made = kind(**{**entry.defaults, **settings})
    except JobError as exc:
        raise JobError(f"attack '{name}': settings.{exc.message}", remedy=exc.remedy) from exc
    attack: Attack[Any] = _from_module(entry, entry.attack)(name, made)
    return attack


def settings_type(name: str) -> type[AttackSettings]:
    """The settings dataclass of an attack of ``ATTACKS``."""
    found: type[AttackSettings] = _from_module(ATTACKS[name], ATTACKS[name].settings)
    return found


def _from_module(entry: AttackEntry, name: str) -> Any:
    return getattr(import_module(f"smoothcert.attacks.{entry.module}"), name)


def _default(entry: AttackEntry, kind: type[AttackSettings], key: str) -> Any:
    own = next(setting.default for setting in fields(kind) if setting.name == key)
    return entry.defaults.get(key, own)
