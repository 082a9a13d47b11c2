"""A multimodal model's tower behind a defence: purified images in, image tokens of the language model out."""

from __future__ import annotations

import torch

from smoothcert.defences.defended import DefendedEncoder
from smoothcert.defences.loading import defend
from smoothcert.encoders.tower import TowerEncoder
from smoothcert.errors import EncoderError
from smoothcert.job.encoder import DefenceSection


class DefendedTower(DefendedEncoder):
    """Purifier, tower, and perhaps a mapper of tokens: what a language model then sees of an image.

    Args:
        tower: of the model.
        purifier: as of ``DefendedEncoder``.
        token_mapper: image tokens (B, T, d) to the same, float32; None for none.
        name: what the user called the defence.
        parts_digest: hex digest of both.
    """

    def __init__(
        self,
        tower: TowerEncoder,
        *,
        purifier: torch.nn.Module | None,
        token_mapper: torch.nn.Module | None,
        name: str,
        parts_digest: str,
    ) -> None:
        super().__init__(tower, purifier=purifier, mapper=token_mapper, name=name, parts_digest=parts_digest)
        self._tower = tower

    def image_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """The image tokens that enter the language model: as ``TowerEncoder.image_tokens``."""
        tokens = self._tower.image_tokens(self._purified(pixels))
        return tokens if self.token_mapper is None else self.token_mapper(tokens.float()).to(tokens.dtype)


Eye = TowerEncoder | DefendedTower
"""What makes image tokens."""


def defend_tower(tower: TowerEncoder, section: DefenceSection, sigma: float) -> DefendedTower:
    """A tower behind the defence that a job names.

    Args:
        tower: of the model.
        section: of the job.
        sigma: of the noise, which parts may be conditioned on.

    Raises:
        EncoderError: a part cannot be loaded or does not fit.
    """
    found = defend(tower, section, section.label, sigma)
    if found.mapper is not None:
        raise EncoderError(
            f"answer.defence.mapper='{section.mapper}' maps whole features; a language model reads tokens",
            remedy="leave mapper out, or train one with method: token-mapper",
        )
    made = DefendedTower(
        tower,
        purifier=found.purifier,
        token_mapper=found.token_mapper,
        name=section.label,
        parts_digest=found.digest,
    )
    made.notes = found.notes
    return made
