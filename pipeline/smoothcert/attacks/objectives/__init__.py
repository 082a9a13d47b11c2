"""Goals of attacks: one file each."""

from __future__ import annotations

from smoothcert.attacks.objectives.base import Objective
from smoothcert.attacks.objectives.building import OBJECTIVES, ObjectiveInputs, build_objective
from smoothcert.attacks.objectives.caption import CaptionSuppression
from smoothcert.attacks.objectives.classification import ClassificationMargin
from smoothcert.attacks.objectives.divergence import FeatureDivergence
from smoothcert.attacks.objectives.matching import FeatureMatching
from smoothcert.attacks.objectives.retrieval import RetrievalDisplacement

__all__ = [
    "OBJECTIVES",
    "CaptionSuppression",
    "ClassificationMargin",
    "FeatureDivergence",
    "FeatureMatching",
    "Objective",
    "ObjectiveInputs",
    "RetrievalDisplacement",
    "build_objective",
]
