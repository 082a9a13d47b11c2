"""Bad input is named before any work starts; attacks and settings come by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import smoothcert.attacks as room
from smoothcert.attacks import ATTACKS, BareSubject, ClassificationMargin, FeatureDivergence, make_attack
from smoothcert.attacks.registry import settings_type
from smoothcert.attacks.transfer import check_transfer
from smoothcert.encoders.known import KnownEncoder
from smoothcert.errors import EncoderError, JobError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 0.0}, "budget=0 "),
        ({"budget": -1.0}, "budget=-1"),
        ({"budget": float("nan")}, "budget=nan"),
        ({"budget": float("inf")}, "budget=inf"),
        ({"budget": [0.1, 0.0, *[0.1] * 6]}, "budget=0 "),
        ({"budget": [0.1, 0.1]}, "2 budgets for 8 pairs"),
        ({"norm": "Linf"}, "norm 'Linf'.*did you mean 'linf'"),
        ({"images": torch.rand(8, 3, 5, 5)}, r"shape \(8, 3, 5, 5\)"),
        ({"images": torch.rand(8, 3, 6, 6).double()}, "float64"),
        ({"images": torch.rand(8, 3, 6, 6) * 255}, r"outside \[0,1\]"),
        ({"images": torch.full((8, 3, 6, 6), torch.nan)}, r"outside \[0,1\]"),
        ({"pair_ids": ["a"] * 8}, r"given twice: \['a'\]"),
        ({"pair_ids": ["a"]}, "8 images, 1 pair ids"),
        ({"objective": FeatureDivergence(torch.ones(3, 5))}, "objective for 3 pairs"),
    ],
)
def test_a_bad_request_is_refused_before_the_encoder_is_asked(
    linear: Any, images: torch.Tensor, pair_ids: list[str], monkeypatch: Any, change: Any, message: str
) -> None:
    def never(batch: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the encoder was asked")

    request = {
        "objective": FeatureDivergence(linear.encode_images(images)),
        "images": images,
        "pair_ids": pair_ids,
        "norm": "l2",
        "budget": 0.1,
    } | change
    monkeypatch.setattr(linear, "_image_features", never)
    with pytest.raises(JobError, match=message):
        make_attack("pgd").run(BareSubject(linear), **request)


def test_an_encoder_without_gradients_is_refused_except_by_square(
    linear: Any, images: torch.Tensor, pair_ids: list[str], monkeypatch: Any
) -> None:
    objective = FeatureDivergence(linear.encode_images(images))
    encode = linear._image_features
    monkeypatch.setattr(linear, "_image_features", lambda batch: encode(batch.detach()))
    for name in ("pgd", "apgd", "fab", "cw", "autoattack"):
        with pytest.raises(EncoderError, match="no gradients"):
            make_attack(name).run(BareSubject(linear), objective, images, pair_ids, norm="l2", budget=0.1)
    outcome = make_attack("square", steps=3).run(
        BareSubject(linear), objective, images, pair_ids, norm="l2", budget=0.1
    )
    assert len(outcome.records) == 8


def test_attacks_refuse_norms_and_objectives_that_they_cannot_pursue(
    linear: Any, images: torch.Tensor, pair_ids: list[str]
) -> None:
    divergence = FeatureDivergence(linear.encode_images(images))
    for name, norm, message in [
        ("cw", "linf", "'cw' does not work in norm 'linf'"),
        ("attackvlm", "l2", "'attackvlm' does not work in norm 'l2'"),
        ("apgd-t", "l2", "needs the objective 'classification', not 'divergence'"),
        ("attackvlm", "linf", "matches a target, but the objective is 'divergence'"),
        ("m-attack", "linf", "matches a target"),
        ("foa", "linf", "matches a target"),
    ]:
        with pytest.raises(JobError, match=message):
            make_attack(name).run(BareSubject(linear), divergence, images, pair_ids, norm=norm, budget=0.1)


def test_every_registered_attack_can_be_made_and_says_what_it_is() -> None:
    for name, entry in ATTACKS.items():
        attack = make_attack(name)
        assert attack.name == name and isinstance(attack.settings, settings_type(name)) and entry.summary
        assert (entry.norm is None) == (entry.budget is None)
        assert entry.norm is None or entry.norm in attack.norms
    assert list(ATTACKS) == sorted(ATTACKS)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("pdg", {}, "'pdg' is unknown.*did you mean 'pgd'"),
        ("pgd", {"step": 3}, "no setting 'step'.*did you mean 'steps'"),
        ("pgd", {"steps": 0}, "steps=0"),
        ("pgd", {"steps": "many"}, "settings.steps='many' is not valid.*valid integer"),
        ("pgd", {"restarts": 1.5}, "settings.restarts=1.5 is not valid.*valid integer"),
        ("pgd", {"restarts": True}, "settings.restarts=True is not valid.*valid integer"),
        ("pgd", {"random_start": "no"}, "settings.random_start='no' is not valid.*valid boolean"),
        ("m-attack", {"crop_scale": (0.5,)}, "settings.crop_scale=.0.5,. is not valid"),
        ("pgd", {"step_size": -0.1}, "step_size=-0.1"),
        ("pgd", {"step_rule": "linear"}, "step_rule='linear' is not valid.*'constant' or 'cosine'"),
        ("apgd", {"loss": "mse"}, "loss='mse'"),
        ("apgd", {"restarts": 0}, "restarts=0"),
        ("fab", {"targets": 0}, "targets=0"),
        ("cw", {"learning_rate": 0}, "learning_rate=0"),
        ("cw", {"confidence": -1}, "confidence=-1"),
        ("square", {"share": 0}, "share=0"),
        ("autoattack", {"version": "plus"}, "version='plus'"),
        ("attackvlm", {"step_size": 0}, "step_size=0"),
        ("m-attack", {"crop_scale": (0.9, 0.5)}, "crop_scale"),
        ("foa", {"temperature": 0}, "temperature=0"),
    ],
)
def test_bad_settings_are_named(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(JobError, match=message):
        make_attack(name, **settings)


def test_transfer_needs_the_same_canonical_input() -> None:
    small, other, large = (KnownEncoder.rotating(input_size=size) for size in ((4, 4), (4, 4), (8, 8)))
    check_transfer(small, other)
    with pytest.raises(JobError, match=r"\(4x4\) do not fit encoder 'known' \(8x8\)"):
        check_transfer(small, large)


def test_an_empty_batch_is_no_error(linear: Any) -> None:
    objective = ClassificationMargin(torch.eye(5), torch.zeros(0, dtype=torch.int64))
    for name in ("pgd", "apgd-t", "fab", "cw", "square", "autoattack"):
        outcome = make_attack(name).run(
            BareSubject(linear), objective, torch.zeros(0, 3, 6, 6), [], norm="l2", budget=0.1
        )
        assert outcome.records == ()


def test_public_names_are_sorted_and_resolve() -> None:
    assert room.__all__ == sorted(room.__all__)
    for name in room.__all__:
        assert getattr(room, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = room.nothing  # type: ignore[attr-defined]
