"""What an attack leaves behind: perturbed images and one record a pair."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from smoothcert.attacks.norms import Norm


@dataclass(frozen=True, slots=True)
class AttackRecord:
    """One attack on one pair. Cosines and confidence bounds come from ``scoring``, on fresh draws.

    Attributes:
        pair_id: stable name of the pair.
        attack: name of the attack.
        objective: name of the objective.
        subject: name of the subject searched on.
        norm: ``l2`` or ``linf``.
        budget: largest norm allowed, units of [0,1] pixels.
        seed: root seed of the noise of the ``attack`` stream.
        steps: queries made for this pair, the clean one included; fewer than allowed where it left early.
        restarts: starts made for this pair, targets of targeted attacks included.
        eot_draws: draws behind one query.
        queries: images of this pair that the search put through the encoder, noise draws counted singly.
        perturbation_l2: ‖x' - x‖_2, measured in float64.
        perturbation_linf: largest |x' - x|, measured in float64.
        margin: the objective's margin at x', as the search saw it; NaN where it failed.
        success: margin < 0 within the budget, as the search saw it.
        distance: smallest norm at which the search saw success, even beyond the budget; NaN where none was
            seen or the attack does not look for it.
        elapsed_s: this pair's share of the batch's wall time.
        error: why the pair could not be attacked, else empty.
    """

    pair_id: str
    attack: str
    objective: str
    subject: str
    norm: Norm
    budget: float
    seed: int
    steps: int
    restarts: int
    eot_draws: int
    queries: int
    perturbation_l2: float
    perturbation_linf: float
    margin: float
    success: bool
    distance: float
    elapsed_s: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class AttackOutcome:
    """A batch of attacks.

    Attributes:
        images: perturbed images x', float32 (B, 3, H, W) in [0,1], within the budget of x.
        records: one a pair, in the order given.
    """

    images: torch.Tensor
    records: tuple[AttackRecord, ...]
