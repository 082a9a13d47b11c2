"""Attacks: perturbations of the canonical input x, within a budget, per pair (torch).

A *subject* is what is attacked (bare or smoothed), an *objective* says what the attack wants, an *attack*
searches a batch of pairs and leaves images and records, ``score`` judges the images on fresh draws.

Names are resolved on first use, so that importing this package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smoothcert.catalogue.attacks import ATTACKS, NORMS, AttackEntry, Norm
from smoothcert.late_names import resolve_late

if TYPE_CHECKING:
    from smoothcert.attacks.base import Attack, AttackSettings
    from smoothcert.attacks.cosines import Interval
    from smoothcert.attacks.objectives.base import Objective
    from smoothcert.attacks.objectives.building import OBJECTIVES, ObjectiveInputs, build_objective
    from smoothcert.attacks.objectives.caption import CaptionSuppression
    from smoothcert.attacks.objectives.classification import ClassificationMargin
    from smoothcert.attacks.objectives.divergence import FeatureDivergence
    from smoothcert.attacks.objectives.matching import FeatureMatching
    from smoothcert.attacks.objectives.retrieval import RetrievalDisplacement
    from smoothcert.attacks.other_rules import RuleScore
    from smoothcert.attacks.records import AttackOutcome, AttackRecord
    from smoothcert.attacks.registry import make_attack
    from smoothcert.attacks.scoring import AttackScore, CleanDraws, draw_clean, score
    from smoothcert.attacks.subjects import BareSubject, SmoothedSubject, Subject
    from smoothcert.attacks.textual import TextReferences, TextualScore, UpperBounded
    from smoothcert.attacks.transfer import check_transfer

__all__ = [
    "ATTACKS",
    "Attack",
    "AttackEntry",
    "AttackOutcome",
    "AttackRecord",
    "AttackScore",
    "AttackSettings",
    "BareSubject",
    "CaptionSuppression",
    "ClassificationMargin",
    "CleanDraws",
    "FeatureDivergence",
    "FeatureMatching",
    "Interval",
    "NORMS",
    "Norm",
    "OBJECTIVES",
    "Objective",
    "ObjectiveInputs",
    "RetrievalDisplacement",
    "RuleScore",
    "SmoothedSubject",
    "Subject",
    "TextReferences",
    "TextualScore",
    "UpperBounded",
    "build_objective",
    "check_transfer",
    "draw_clean",
    "make_attack",
    "score",
]

_HOME = {
    "Attack": "base",
    "AttackOutcome": "records",
    "AttackRecord": "records",
    "AttackScore": "scoring",
    "AttackSettings": "base",
    "BareSubject": "subjects",
    "CaptionSuppression": "objectives.caption",
    "ClassificationMargin": "objectives.classification",
    "CleanDraws": "scoring",
    "FeatureDivergence": "objectives.divergence",
    "FeatureMatching": "objectives.matching",
    "Interval": "cosines",
    "OBJECTIVES": "objectives.building",
    "Objective": "objectives.base",
    "ObjectiveInputs": "objectives.building",
    "RetrievalDisplacement": "objectives.retrieval",
    "RuleScore": "other_rules",
    "SmoothedSubject": "subjects",
    "Subject": "subjects",
    "TextReferences": "textual",
    "TextualScore": "textual",
    "UpperBounded": "textual",
    "build_objective": "objectives.building",
    "check_transfer": "transfer",
    "draw_clean": "scoring",
    "make_attack": "registry",
    "score": "scoring",
}

__getattr__, __dir__ = resolve_late(__name__, _HOME, __all__)
