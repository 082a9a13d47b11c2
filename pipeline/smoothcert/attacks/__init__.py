"""Attacks: perturbations of the canonical input x, within a budget, per pair (torch).

Names are resolved on first use, so that importing this package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smoothcert.attacks.base import Attack, AttackSettings
    from smoothcert.attacks.norms import NORMS, Norm
    from smoothcert.attacks.objectives.base import Objective
    from smoothcert.attacks.objectives.building import OBJECTIVES, ObjectiveInputs, build_objective
    from smoothcert.attacks.objectives.caption import CaptionSuppression
    from smoothcert.attacks.objectives.classification import ClassificationMargin
    from smoothcert.attacks.objectives.divergence import FeatureDivergence
    from smoothcert.attacks.objectives.matching import FeatureMatching
    from smoothcert.attacks.objectives.retrieval import RetrievalDisplacement
    from smoothcert.attacks.records import AttackOutcome, AttackRecord
    from smoothcert.attacks.registry import ATTACKS, AttackEntry, make_attack
    from smoothcert.attacks.subjects import BareSubject, SmoothedSubject, Subject

__all__ = [
    "ATTACKS",
    "NORMS",
    "OBJECTIVES",
    "Attack",
    "AttackEntry",
    "AttackOutcome",
    "AttackRecord",
    "AttackSettings",
    "BareSubject",
    "CaptionSuppression",
    "ClassificationMargin",
    "FeatureDivergence",
    "FeatureMatching",
    "Norm",
    "Objective",
    "ObjectiveInputs",
    "RetrievalDisplacement",
    "SmoothedSubject",
    "Subject",
    "build_objective",
    "make_attack",
]

_HOME = {
    "ATTACKS": "registry",
    "NORMS": "norms",
    "OBJECTIVES": "objectives.building",
    "Attack": "base",
    "AttackEntry": "registry",
    "AttackOutcome": "records",
    "AttackRecord": "records",
    "AttackSettings": "base",
    "BareSubject": "subjects",
    "CaptionSuppression": "objectives.caption",
    "ClassificationMargin": "objectives.classification",
    "FeatureDivergence": "objectives.divergence",
    "FeatureMatching": "objectives.matching",
    "Norm": "norms",
    "Objective": "objectives.base",
    "ObjectiveInputs": "objectives.building",
    "RetrievalDisplacement": "objectives.retrieval",
    "SmoothedSubject": "subjects",
    "Subject": "subjects",
    "build_objective": "objectives.building",
    "make_attack": "registry",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
