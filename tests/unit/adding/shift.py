"""An attack of its own: all pixels a little brighter, or a little darker."""

from __future__ import annotations

from dataclasses import dataclass

from smoothcert.attacks.base import Attack, AttackSettings
from smoothcert.attacks.campaign import Campaign


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftSettings(AttackSettings):
    """Settings of ``Shift``: those of every attack."""


class Shift(Attack[ShiftSettings]):
    """The points of the ball straight above and straight below the image; the better one counts."""

    needs_gradients = False

    def search(self, campaign: Campaign) -> None:
        """See ``Attack.search``."""
        for sign in (1.0, -1.0):
            rows = campaign.open_rows()
            points = campaign.ball.select(rows).project(campaign.images[rows] + sign)
            campaign.count_restart(rows)
            campaign.ask(rows, points, gradient=False)
            campaign.settle(rows, points)
