"""Every attack of the registry does the same to a pair alone as in a batch, on an encoder with attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from smoothcert.attacks import (
    ATTACKS,
    BareSubject,
    ClassificationMargin,
    FeatureMatching,
    Objective,
    SmoothedSubject,
    make_attack,
)
from smoothcert.datasets import DIGIT_NAMES, load_digits_pairs
from smoothcert.encoders import Encoder, load_encoder
from smoothcert.job import EncoderSection

PAIRS = 3
SETTINGS: dict[str, dict[str, Any]] = {
    "apgd": {"steps": 5},
    "apgd-ce": {"steps": 5},
    "apgd-dlr": {"steps": 5},
    "apgd-t": {"steps": 4, "targets": 2},
    "attackvlm": {"steps": 5},
    "autoattack": {"steps": 3, "targets": 2, "square_steps": 5},
    "cw": {"steps": 4, "weights": 2},
    "fab": {"steps": 3, "targets": 2},
    "foa": {"steps": 4, "check_every": 2},
    "m-attack": {"steps": 4, "check_every": 2},
    "pgd": {"steps": 4, "restarts": 2},
    "square": {"steps": 12},
}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.set_num_threads(1)
    return load_encoder(EncoderSection(model="bundled:digits-clip", device="cpu"))


@pytest.fixture(scope="module")
def digits(encoder: Encoder) -> torch.Tensor:
    pairs = load_digits_pairs("test")[:PAIRS]
    return torch.stack([torch.from_numpy(encoder.prepare(image)) for image, _, _ in pairs]).float() / 255


def objective(encoder: Encoder, digits: torch.Tensor, name: str) -> Objective:
    clean = encoder.encode_images(digits).detach()
    if ATTACKS[name].budget is not None:
        return FeatureMatching(clean.roll(1, 0), clean, digits.roll(1, 0))
    classes = encoder.encode_texts([f"a photo of the digit {label}" for label in DIGIT_NAMES])
    return ClassificationMargin(classes, (clean @ classes.T).argmax(1))


def test_no_attack_is_left_out() -> None:
    assert set(SETTINGS) == set(ATTACKS)


@pytest.mark.parametrize("smoothed", [False, True], ids=["bare", "smoothed"])
@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_a_pair_does_the_same_alone_as_in_a_batch(
    encoder: Encoder, digits: torch.Tensor, name: str, smoothed: bool
) -> None:
    subject = SmoothedSubject(encoder, 0.25, eot_draws=2) if smoothed else BareSubject(encoder)
    goal = objective(encoder, digits, name)
    attack = make_attack(name, **SETTINGS[name])
    entry = ATTACKS[name]
    how: dict[str, Any] = {"norm": entry.norm or "l2", "budget": entry.budget or 0.4, "seed": 3}
    names = [f"pair-{row}" for row in range(PAIRS)]
    together = attack.run(subject, goal, digits, names, **how)
    for row in (0, PAIRS - 1):
        one = slice(row, row + 1)
        alone = attack.run(subject, goal.select(torch.tensor([row])), digits[one], names[one], **how)
        ours, theirs = together.records[row], alone.records[0]
        assert (ours.success, ours.steps, ours.queries) == (theirs.success, theirs.steps, theirs.queries)
        assert ours.margin == pytest.approx(theirs.margin, abs=1e-5)
        with torch.no_grad():
            left, right = encoder.encode_images(torch.stack([together.images[row], alone.images[0]]))
        assert float(left @ right) > 1 - 1e-5
