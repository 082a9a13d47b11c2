"""The template that every attack fills in: it validates, so that a method reads like its pseudocode."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import torch

from smoothcert.attacks.campaign import Campaign
from smoothcert.attacks.norms import NORMS, Norm
from smoothcert.attacks.objectives.base import Objective
from smoothcert.attacks.records import AttackOutcome
from smoothcert.attacks.subjects import Subject
from smoothcert.errors import JobError, did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackSettings:
    """What every attack has.

    Attributes:
        early_stop: a pair leaves the batch once its objective is reached; False searches on for the lowest
            margin.
    """

    early_stop: bool = True

    def need_at_least(self, least: float, *names: str) -> None:
        """Raise ``JobError`` where a setting is below ``least`` (or NaN)."""
        for name in names:
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise JobError(f"{name}={value} is too small", remedy=f"use {least:g} or more")

    def need_positive(self, *names: str) -> None:
        """Raise ``JobError`` where a setting is not a positive finite number."""
        for name in names:
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise JobError(f"{name}={value} is not a positive number", remedy="use a positive number")


SettingsT = TypeVar("SettingsT", bound=AttackSettings)


class Attack(ABC, Generic[SettingsT]):
    """A way to search for perturbations, for a batch of pairs at once.

    Subclasses implement ``search``; they may restrict ``norms`` and extend ``check``.

    Attributes:
        name: as results call it; the registry's key.
        norms: the norms it works in.
        needs_gradients: whether the encoder must be differentiable.
    """

    name: str
    norms: ClassVar[tuple[Norm, ...]] = NORMS
    needs_gradients: ClassVar[bool] = True

    def __init__(self, name: str, settings: SettingsT) -> None:
        self.name = name
        self.settings = settings

    def run(
        self,
        subject: Subject,
        objective: Objective,
        images: torch.Tensor,
        pair_ids: Sequence[str],
        *,
        norm: Norm,
        budget: float | Sequence[float] | torch.Tensor,
        seed: int = 0,
    ) -> AttackOutcome:
        """Attack a batch of pairs.

        Args:
            subject: what is attacked.
            objective: one row a pair, tensors on the subject's device.
            images: clean x, float32 (B, 3, H, W) in [0,1].
            pair_ids: B different names; they key the noise.
            norm: of the budget.
            budget: largest norm of x' - x, units of [0,1] pixels: one for all, or one a pair.
            seed: root of all noise.

        Raises:
            JobError: a field is wrong, or this attack cannot pursue this objective in this norm.
            EncoderError: the attack needs gradients and the encoder gives none.
        """
        images = images.detach().to(subject.encoder.device)
        budgets = check_budget(budget, len(images)).to(images.device)
        check_norm(self.name, norm, self.norms)
        check_batch(subject, objective, images, pair_ids)
        self.check(subject, objective, norm)
        for each in self.differentiated(subject) if len(images) else ():
            each.check_gradients()
        campaign = Campaign(
            self.name,
            subject,
            objective,
            images,
            pair_ids,
            norm=norm,
            budget=budgets,
            seed=seed,
            early_stop=self.settings.early_stop,
        )
        self.search(campaign)
        return campaign.outcome()

    def check(self, subject: Subject, objective: Objective, norm: Norm) -> None:  # noqa: B027
        """Raise ``JobError`` or ``EncoderError`` where the attack cannot do what is asked."""

    def differentiated(self, subject: Subject) -> Sequence[Subject]:
        """What the search needs gradients of, when ``subject`` is attacked."""
        return (subject,) if self.needs_gradients else ()

    @abstractmethod
    def search(self, campaign: Campaign) -> None:
        """Query the campaign's open pairs; it keeps their best points."""


def check_budget(budget: float | Sequence[float] | torch.Tensor, pairs: int) -> torch.Tensor:
    """Budgets as float64 (B,), or a ``JobError`` where one is not a positive finite number."""
    budgets = torch.as_tensor(budget, dtype=torch.float64).reshape(-1)
    wrong = budgets[~((budgets > 0) & torch.isfinite(budgets))]
    if len(wrong):
        raise JobError(
            f"budget={float(wrong[0]):g} is not a valid size of a perturbation",
            remedy="use a positive number in units of [0,1] pixels, e.g. 0.0314 (8/255) for linf",
        )
    if len(budgets) not in (1, pairs):
        raise JobError(f"{len(budgets)} budgets for {pairs} pairs", remedy="give one budget, or one per pair")
    return budgets.expand(pairs).clone()


def check_norm(attack: str, norm: str, norms: Sequence[str]) -> None:
    """Raise ``JobError`` unless the attack works in this norm."""
    if norm not in norms:
        raise JobError(
            f"attack '{attack}' does not work in norm '{norm}'{did_you_mean(norm, norms)}",
            remedy=f"use one of: {', '.join(norms)}",
        )


def check_batch(
    subject: Subject, objective: Objective, images: torch.Tensor, pair_ids: Sequence[str]
) -> None:
    """Raise ``JobError`` unless images, names and objective fit each other and the encoder."""
    shape = (3, *subject.encoder.input_size)
    if images.ndim != 4 or tuple(images.shape[1:]) != shape or images.dtype != torch.float32:
        raise JobError(
            f"images of shape {tuple(images.shape)} and type {images.dtype} do not fit encoder "
            f"'{subject.encoder.name}'",
            remedy=f"give float32 (B, {', '.join(map(str, shape))}) in [0,1]",
        )
    if len(images) and not bool(((images >= 0) & (images <= 1)).all()):
        raise JobError("images have values outside [0,1]", remedy="divide what prepare() makes by 255")
    if len(pair_ids) != len(images) or len(objective) != len(images):
        raise JobError(
            f"{len(images)} images, {len(pair_ids)} pair ids and an objective for {len(objective)} pairs",
            remedy="give one of each for every pair",
        )
    if len(set(pair_ids)) != len(pair_ids):
        doubled = sorted({name for name in pair_ids if list(pair_ids).count(name) > 1})
        raise JobError(
            f"pair ids given twice: {doubled[:3]}", remedy="noise is keyed by pair id: keep one of each"
        )
