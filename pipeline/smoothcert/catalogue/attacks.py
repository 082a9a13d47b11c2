"""Every attack, one entry each: names, published settings and where its code is; no torch.

Jobs check names and fill in published norms and budgets from here; the code is imported when an attack is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

Norm = Literal["l2", "linf"]
NORMS: tuple[Norm, ...] = ("l2", "linf")


@dataclass(frozen=True, slots=True)
class AttackEntry:
    """What is known of one attack before torch is.

    Attributes:
        module: of ``smoothcert.attacks``.
        attack: its class there: (name, settings) -> attack.
        settings: its settings dataclass there.
        summary: one line for people.
        defaults: settings that differ from the dataclass's own defaults.
        norm: the norm of the published setting, where there is one.
        budget: the budget of the published setting, units of [0,1] pixels, where there is one.
        ensemble: whether its gradients come from any number of surrogates.
    """

    module: str
    attack: str
    settings: str
    summary: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    norm: Norm | None = None
    budget: float | None = None
    ensemble: bool = False


ATTACKS: Mapping[str, AttackEntry] = MappingProxyType(
    {
        "apgd": AttackEntry("apgd", "APGD", "APGDSettings", "Auto-PGD on the objective's own loss"),
        "apgd-ce": AttackEntry(
            "apgd", "APGD", "APGDSettings", "Auto-PGD on the cross-entropy", {"loss": "ce"}
        ),
        "apgd-dlr": AttackEntry(
            "apgd",
            "APGD",
            "APGDSettings",
            "Auto-PGD on the difference of logits ratio",
            {"loss": "dlr"},
        ),
        "apgd-t": AttackEntry(
            "apgd",
            "APGD",
            "APGDSettings",
            "Auto-PGD on the targeted difference of logits ratio",
            {"loss": "dlr-targeted"},
        ),
        "attackvlm": AttackEntry(
            "attackvlm",
            "AttackVLM",
            "MatchingSettings",
            "match the feature of a target caption (MF-it) or image (MF-ii)",
            norm="linf",
            budget=8 / 255,
        ),
        "autoattack": AttackEntry(
            "autoattack",
            "AutoAttack",
            "AutoAttackSettings",
            "worst case per pair over APGD, FAB and Square, in sequence",
        ),
        "cw": AttackEntry(
            "carlini_wagner",
            "CarliniWagner",
            "CarliniWagnerSettings",
            "Carlini and Wagner's smallest l2 perturbation",
        ),
        "fab": AttackEntry(
            "fab", "FAB", "FABSettings", "smallest perturbation by steps to the linearised edge"
        ),
        "foa": AttackEntry(
            "foa",
            "FOA",
            "FOASettings",
            "M-Attack, with clustered patch features matched by optimal transport",
            norm="linf",
            budget=16 / 255,
            ensemble=True,
        ),
        "m-attack": AttackEntry(
            "mattack",
            "MAttack",
            "MAttackSettings",
            "match random crops with crops of a target image, over an ensemble",
            norm="linf",
            budget=16 / 255,
            ensemble=True,
        ),
        "pgd": AttackEntry("pgd", "PGD", "PGDSettings", "projected gradient descent"),
        "square": AttackEntry("square", "Square", "SquareSettings", "random search without gradients"),
    }
)
"""By name."""
