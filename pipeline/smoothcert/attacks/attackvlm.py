"""AttackVLM (Zhao et al. 2023, 2305.16934): match the feature of a target caption or a target image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from smoothcert.attacks.base import Attack, AttackSettings
from smoothcert.attacks.campaign import Campaign, keep
from smoothcert.attacks.norms import Norm
from smoothcert.attacks.objectives.base import Objective
from smoothcert.attacks.objectives.matching import FeatureMatching
from smoothcert.attacks.subjects import Subject
from smoothcert.errors import JobError


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchingSettings(AttackSettings):
    """Settings of attacks that match a target with sign steps of constant size.

    Attributes:
        steps: gradient steps from the clean image.
        step_size: in units of [0,1] pixels.
        early_stop: off, as in the paper: the search goes on towards the target after success.
    """

    steps: int = 300
    step_size: float = 1 / 255
    early_stop: bool = False

    def __post_init__(self) -> None:
        self.need_at_least(1, "steps")
        self.need_positive("step_size")


class AttackVLM(Attack[MatchingSettings]):
    """delta <- clamp(delta + step * sign(gradient of the cosine to the target)), from delta = 0.

    MF-it with a caption as target, MF-ii with an image: the objective's target decides. The published budget
    is 8/255. Query-based refinement (MF-tt), which asks a captioning model, is not covered.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("linf",)

    def check(self, subject: Subject, objective: Objective, norm: Norm) -> None:
        """See ``Attack.check``."""
        need_matching(self.name, objective)

    def search(self, campaign: Campaign) -> None:
        """See ``Attack.search``."""
        rows = campaign.open_rows()
        points = campaign.starts(rows, "attackvlm", random=False)
        for _ in range(self.settings.steps):
            answer = campaign.ask(rows, points)
            rows, points, gradient = keep(campaign.is_open(rows), rows, points, answer.gradient)
            if not len(rows):
                return
            ball = campaign.ball.select(rows)
            points = ball.project(points + self.settings.step_size * ball.steepest(gradient))
        campaign.ask(rows, points, gradient=False)
        campaign.settle(rows, points)


def need_matching(attack: str, objective: Objective, *, images: bool = False) -> FeatureMatching:
    """The objective, or a ``JobError`` unless it matches a target (with target images where asked)."""
    if not isinstance(objective, FeatureMatching):
        raise JobError(
            f"attack '{attack}' matches a target, but the objective is '{objective.name}'",
            remedy="use objective: matching",
        )
    if images and objective.target_images is None:
        raise JobError(
            f"attack '{attack}' needs target images, but the target is a feature only",
            remedy="choose target images, or use the attack 'attackvlm', which matches captions too",
        )
    return objective
