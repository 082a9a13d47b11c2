"""M-Attack (Li et al. 2025, 2503.10635): match random crops with crops of the target, over an ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from smoothcert.attacks.attackvlm import MatchingSettings, need_matching
from smoothcert.attacks.base import Attack
from smoothcert.attacks.campaign import Campaign, keep
from smoothcert.attacks.crops import random_crops, resize
from smoothcert.attacks.norms import Norm
from smoothcert.attacks.objectives.base import Objective, cosine
from smoothcert.attacks.subjects import BareSubject, Subject
from smoothcert.encoders.base import Encoder
from smoothcert.errors import JobError


@dataclass(frozen=True, slots=True, kw_only=True)
class MAttackSettings(MatchingSettings):
    """Settings of ``MAttack``.

    Attributes:
        crop_scale: smallest and largest share of the area that a crop keeps.
        crop_target: whether the target is cropped too (local-to-local), else matched whole (local-to-global).
        surrogates: encoders whose mean cosine is raised; without any, the attacked subject's own encoder.
            They may have other input sizes: crops are resized anyway.
        check_every: steps between looks at the subject itself; the best point seen counts.
    """

    crop_scale: tuple[float, float] = (0.5, 0.9)
    crop_target: bool = True
    surrogates: Sequence[Encoder] = field(default=())
    check_every: int = 25

    def __post_init__(self) -> None:
        MatchingSettings.__post_init__(self)
        self.need_at_least(1, "check_every")
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise JobError(
                f"crop_scale={list(self.crop_scale)} is not a range of shares", remedy="use e.g. [0.5, 0.9]"
            )


class MAttack(Attack[MAttackSettings]):
    """Sign steps on crops; the published budget is 16/255 with 300 steps of 1/255.

    Gradients come from the surrogates as they are, without noise: the attack is about transfer. The subject,
    which may be smoothed, is only looked at now and then.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("linf",)

    def check(self, subject: Subject, objective: Objective, norm: Norm) -> None:
        """See ``Attack.check``."""
        need_matching(self.name, objective, images=True)

    def differentiated(self, subject: Subject) -> Sequence[Subject]:
        """See ``Attack.differentiated``: the surrogates, where there are any."""
        return tuple(BareSubject(encoder) for encoder in self.settings.surrogates) or (subject,)

    def search(self, campaign: Campaign) -> None:
        """See ``Attack.search``."""
        rows = campaign.open_rows()
        points = campaign.starts(rows, "crops", random=False)
        shape = (len(self.surrogates(campaign)), len(campaign.images))
        before = torch.full(shape, torch.nan, device=points.device)
        for step in range(self.settings.steps):
            gradient = self._gradient(campaign, rows, points, step, before)
            rows, points, gradient = keep(campaign.is_open(rows), rows, points, gradient)
            if not len(rows):
                return
            ball = campaign.ball.select(rows)
            points = ball.project(points + self.settings.step_size * ball.steepest(gradient))
            if (step + 1) % self.settings.check_every == 0 or step + 1 == self.settings.steps:
                campaign.ask(rows, points, gradient=False)
                rows, points = keep(campaign.is_open(rows), rows, points)
            if not len(rows):
                return
        campaign.settle(rows, points)

    def surrogates(self, campaign: Campaign) -> Sequence[Encoder]:
        """The ensemble."""
        return tuple(self.settings.surrogates) or (campaign.subject.encoder,)

    def similarity(self, encoder: Encoder, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """How near an encoder finds crops of the images to crops of their targets: (k,)."""
        with torch.no_grad():
            wanted = encoder.encode_images(target)
        return cosine(encoder.encode_images(source), wanted)

    def weights(self, now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Weights of the surrogates, from similarities (n, k) at this and the last step (NaN at first)."""
        return torch.full_like(now, 1 / len(now))

    def _gradient(
        self, campaign: Campaign, rows: torch.Tensor, points: torch.Tensor, step: int, before: torch.Tensor
    ) -> torch.Tensor:
        """Gradient of the weighted similarity, in chunks of the subject's size; writes ``before``.

        A pair for which the subject's own encoder gives no number fails; its gradient means nothing.

        Raises:
            FloatingPointError: a surrogate's similarity is no number: a step along it would go nowhere.
        """
        parts = []
        for part in torch.split(torch.arange(len(rows), device=rows.device), campaign.subject.chunk):
            images = points[part].detach().requires_grad_(True)
            now = torch.stack(
                [
                    self.similarity(encoder, *self._crops(campaign, rows[part], images, encoder, step))
                    for encoder in self.surrogates(campaign)
                ]
            )
            broken = ~torch.isfinite(now).all(dim=0)
            if bool(broken.any()):
                if self.settings.surrogates:
                    raise FloatingPointError(f"attack '{self.name}': a surrogate gave NaN or infinity")
                campaign.fail(rows[part[broken]])
            weights = self.weights(now.detach(), before[:, rows[part]])
            before[:, rows[part]] = now.detach()
            parts.append(torch.autograd.grad((weights * now).sum(), images)[0])
            campaign.count_queries(rows[part], len(now))
        return torch.cat(parts)

    def _crops(
        self, campaign: Campaign, rows: torch.Tensor, images: torch.Tensor, encoder: Encoder, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One step's crops of images and targets on an encoder's grid; every encoder sees the same crops."""
        objective = need_matching(self.name, campaign.objective, images=True)
        assert objective.target_images is not None, "need_matching saw to it"
        targets, scale, size = objective.target_images[rows], self.settings.crop_scale, encoder.input_size
        source = random_crops(images, campaign.keys(rows, "crop", step), scale, size)
        if not self.settings.crop_target:
            return source, resize(targets, size)
        return source, random_crops(targets, campaign.keys(rows, "target crop", step), scale, size)
