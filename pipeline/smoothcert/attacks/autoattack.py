"""Worst case per pair over several attacks, in the manner of AutoAttack (Croce and Hein 2020, 2003.01690)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from smoothcert.attacks.apgd import APGD, APGDSettings
from smoothcert.attacks.base import Attack, AttackSettings
from smoothcert.attacks.campaign import Campaign
from smoothcert.attacks.fab import FAB, FABSettings
from smoothcert.attacks.objectives.classification import ClassificationMargin
from smoothcert.attacks.square import Square, SquareSettings
from smoothcert.errors import JobError


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoAttackSettings(AttackSettings):
    """Settings of ``AutoAttack``.

    Attributes:
        version: ``standard`` is APGD-CE, targeted APGD, targeted FAB and Square; ``rand`` is APGD-CE and
            APGD-DLR, the authors' choice for random subjects; ``auto`` takes ``rand`` exactly where the
            subject is random. An objective without classes takes APGD on its own loss, FAB on its margin and
            Square.
        steps: of APGD and FAB.
        targets: classes tried by the targeted attacks.
        square_steps: queries of Square.
    """

    version: Literal["auto", "standard", "rand"] = "auto"
    steps: int = 100
    targets: int = 9
    square_steps: int = 5000

    def __post_init__(self) -> None:
        self.need_at_least(1, "steps", "targets", "square_steps")
        if self.version not in ("auto", "standard", "rand"):
            raise JobError(f"version='{self.version}' is unknown", remedy="use auto, standard or rand")


class AutoAttack(Attack[AutoAttackSettings]):
    """Attacks in sequence; only pairs that survived the earlier ones go on (all, without ``early_stop``)."""

    def search(self, campaign: Campaign) -> None:
        """See ``Attack.search``."""
        for attack in self._attacks(campaign):
            if len(campaign.open_rows()):
                attack.search(campaign)

    def _attacks(self, campaign: Campaign) -> list[Attack[Any]]:
        steps, targets, early = self.settings.steps, self.settings.targets, self.settings.early_stop

        def apgd(loss: Any) -> Attack[Any]:
            return APGD(self.name, APGDSettings(steps=steps, loss=loss, targets=targets, early_stop=early))

        fab = FAB(self.name, FABSettings(steps=steps, targets=targets, early_stop=early))
        square = Square(self.name, SquareSettings(steps=self.settings.square_steps, early_stop=early))
        version = self.settings.version
        if version == "auto":
            version = "rand" if campaign.subject.stochastic else "standard"
        if not isinstance(campaign.objective, ClassificationMargin):
            return [apgd("objective")] if version == "rand" else [apgd("objective"), fab, square]
        if version == "rand":
            return [apgd("ce"), apgd("dlr")]
        return [apgd("ce"), apgd("dlr-targeted"), fab, square]
