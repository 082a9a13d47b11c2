"""Our PGD against foolbox's, on the same encoder, steps and pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from smoothcert.attacks import BareSubject, ClassificationMargin, make_attack


class Logits(torch.nn.Module):
    """Cosines times CLIP's scale: what our objective computes."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.encoder.encode_images(pixels) * 100


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_at_least_as_strong_as_foolbox(linear: Any, norm: Any) -> None:
    import foolbox

    pixels = torch.rand(32, 3, 6, 6, generator=torch.Generator().manual_seed(2)) * 0.4 + 0.3
    labels = linear.encode_images(pixels).argmax(1)
    objective = ClassificationMargin(torch.eye(5), labels)
    budget, steps = (0.08, 20) if norm == "l2" else (0.008, 20)
    model = foolbox.PyTorchModel(Logits(linear).eval(), bounds=(0, 1), device="cpu")
    theirs = foolbox.attacks.L2PGD if norm == "l2" else foolbox.attacks.LinfPGD
    torch.manual_seed(0)
    _, adversarial, _ = theirs(steps=steps)(model, pixels, labels, epsilons=budget)
    their_margins = objective.margin(linear.encode_images(adversarial)).numpy()
    outcome = make_attack("pgd", steps=steps, early_stop=False).run(
        BareSubject(linear), objective, pixels, [str(row) for row in range(32)], norm=norm, budget=budget
    )
    our_margins = np.array([record.margin for record in outcome.records])
    assert (our_margins < 0).sum() >= (their_margins < 0).sum() > 0
    assert our_margins.mean() <= their_margins.mean() + 1e-4
