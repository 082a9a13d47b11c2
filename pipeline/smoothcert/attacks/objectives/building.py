"""Objectives by name, from what a source offers."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from smoothcert.attacks.objectives.base import Objective, need
from smoothcert.attacks.objectives.caption import CaptionSuppression
from smoothcert.attacks.objectives.classification import ClassificationMargin
from smoothcert.attacks.objectives.divergence import FeatureDivergence
from smoothcert.attacks.objectives.matching import FeatureMatching
from smoothcert.attacks.objectives.retrieval import RetrievalDisplacement
from smoothcert.errors import JobError, did_you_mean

OBJECTIVES: tuple[str, ...] = ("caption", "classification", "divergence", "matching", "retrieval")


@dataclass(frozen=True, slots=True)
class ObjectiveInputs:
    """Everything objectives may need for a batch of pairs; None is what the source lacks.

    Attributes:
        clean: (B, d), clean features.
        captions: (B, d), features of the pairs' own captions.
        labels: int64 (B,), class numbers.
        class_features: (C, d).
        targets: (B, d), features to match.
        target_images: (B, 3, H, W), images behind ``targets``.
        targets_are_captions: whether ``targets`` come from texts.
        pool: (M, d), candidate captions.
        rivals: bool (B, M), candidates that are not the pair's own.
    """

    clean: torch.Tensor
    captions: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    class_features: torch.Tensor | None = None
    targets: torch.Tensor | None = None
    target_images: torch.Tensor | None = None
    targets_are_captions: bool = False
    pool: torch.Tensor | None = None
    rivals: torch.Tensor | None = None


def build_objective(
    name: str,
    inputs: ObjectiveInputs,
    *,
    threshold: float | None = None,
    k: int = 1,
    logit_scale: float = 100.0,
) -> Objective:
    """The objective of that name.

    Args:
        name: one of ``OBJECTIVES``.
        inputs: what the source offers.
        threshold: cosine for ``divergence`` (default 0.5) and ``caption`` (default 0).
        k: rank for ``retrieval``.
        logit_scale: for ``classification`` under CE.

    Raises:
        JobError: the name is unknown, or the source lacks a label, target or caption that it needs.
    """
    if name == "divergence":
        return FeatureDivergence(inputs.clean, 0.5 if threshold is None else threshold)
    if name == "matching":
        target = need(name, "a target", inputs.targets, "choose target images or captions for the attack")
        own = inputs.captions if inputs.targets_are_captions and inputs.captions is not None else inputs.clean
        return FeatureMatching(target, own, inputs.target_images)
    if name == "caption":
        caption = need(name, "a caption", inputs.captions, "use a source with captions, or another objective")
        return CaptionSuppression(caption, 0.0 if threshold is None else threshold)
    if name == "classification":
        classes = need(name, "class names", inputs.class_features, "add a 'zero_shot' section")
        labels = need(name, "a label", inputs.labels, "use a source with labels, or another objective")
        return ClassificationMargin(classes, labels, logit_scale=logit_scale)
    if name == "retrieval":
        pool = need(name, "a pool of captions", inputs.pool, "add a 'retrieval' section")
        caption = need(name, "a caption", inputs.captions, "use a source with captions, or another objective")
        rivals = inputs.rivals
        if rivals is None:
            rivals = torch.ones((len(caption), len(pool)), dtype=torch.bool, device=pool.device)
        return RetrievalDisplacement(pool, caption, rivals, k)
    raise JobError(
        f"objective '{name}' is unknown{did_you_mean(name, OBJECTIVES)}",
        remedy=f"use one of: {', '.join(OBJECTIVES)}",
    )
