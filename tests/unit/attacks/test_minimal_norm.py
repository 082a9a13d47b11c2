"""FAB, C&W, Square and the worst case over attacks, against a linear classifier's exact distances."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from smoothcert.attacks import BareSubject, ClassificationMargin, FeatureDivergence, make_attack
from smoothcert.attacks.square import bump, changed_share, two_sided_bump


def exact_distances(encoder: Any, images: torch.Tensor, norm: str) -> np.ndarray:
    """Distance to the nearest other class: gap / dual norm, smallest over rivals; the box is far away."""
    weight = encoder.weight.double().numpy()
    logits = (images.double().numpy() - 0.5).reshape(len(images), -1) @ weight.T
    labels = logits.argmax(1)
    order = 2 if norm == "l2" else 1
    distances = np.full(logits.shape, np.inf)
    for row, label in enumerate(labels):
        for rival in set(range(len(weight))) - {label}:
            length = np.linalg.norm(weight[label] - weight[rival], ord=order)
            distances[row, rival] = (logits[row, label] - logits[row, rival]) / length
    return distances.min(axis=1)


@pytest.fixture
def objective(linear: Any, images: torch.Tensor) -> ClassificationMargin:
    return ClassificationMargin(torch.eye(5), linear.encode_images(images).argmax(1))


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_fab_finds_the_exact_distance(
    linear: Any, images: torch.Tensor, pair_ids: list[str], objective: Any, norm: Any
) -> None:
    exact = exact_distances(linear, images, norm)
    outcome = make_attack("fab", steps=40, early_stop=False).run(
        BareSubject(linear), objective, images, pair_ids, norm=norm, budget=1.0
    )
    found = np.array([record.distance for record in outcome.records])
    assert (found >= exact * (1 - 1e-5)).all()
    np.testing.assert_allclose(found, exact, rtol=0.05)
    assert all(record.success for record in outcome.records)


def test_carlini_wagner_finds_the_exact_distance(
    linear: Any, images: torch.Tensor, pair_ids: list[str], objective: Any
) -> None:
    exact = exact_distances(linear, images, "l2")
    outcome = make_attack("cw", steps=100, learning_rate=0.003, early_stop=False).run(
        BareSubject(linear), objective, images, pair_ids, norm="l2", budget=1.0
    )
    found = np.array([record.distance for record in outcome.records])
    assert (found >= exact * (1 - 1e-5)).all()
    np.testing.assert_allclose(found, exact, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("name", ["fab", "cw"])
def test_minimal_attacks_keep_to_the_budget_and_report_what_lies_beyond(
    linear: Any, images: torch.Tensor, pair_ids: list[str], objective: Any, name: str
) -> None:
    exact = exact_distances(linear, images, "l2")
    budget = float(np.median(exact))
    outcome = make_attack(name, steps=60, early_stop=False).run(
        BareSubject(linear), objective, images, pair_ids, norm="l2", budget=budget
    )
    for record, distance in zip(outcome.records, exact, strict=True):
        assert record.perturbation_l2 <= budget
        assert not (record.success and distance > budget)
        assert record.success or record.distance > budget or distance > 0.9 * budget


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_worst_case_over_attacks_decides_both_sides_of_the_exact_distance(
    linear: Any, images: torch.Tensor, pair_ids: list[str], objective: Any, norm: Any
) -> None:
    exact = exact_distances(linear, images, norm)
    attack = make_attack("autoattack", steps=25, square_steps=50)

    def outcome(factor: float) -> Any:
        return attack.run(
            BareSubject(linear), objective, images, pair_ids, norm=norm, budget=list(exact * factor)
        )

    assert all(record.success for record in outcome(1.02).records)
    beaten = outcome(0.98).records
    assert not any(record.success for record in beaten)
    # all four attacks had their turn: clean, APGD-CE, APGD-T on 4 rivals, FAB-T on 4 rivals, its end, Square
    assert {record.steps for record in beaten} == {1 + 26 + 4 * 26 + 4 * 50 + 5 + 1 + 50}


def test_survivors_of_the_first_attack_go_on_alone(
    linear: Any, images: torch.Tensor, pair_ids: list[str], objective: Any
) -> None:
    exact = exact_distances(linear, images, "l2")
    budgets = np.where(np.arange(8) % 2, exact * 1.5, exact * 0.9)
    outcome = make_attack("autoattack", steps=20, square_steps=30).run(
        BareSubject(linear), objective, images, pair_ids, norm="l2", budget=list(budgets)
    )
    for row, record in enumerate(outcome.records):
        assert record.success == bool(row % 2)
        assert (record.steps < 22) == record.success


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_square_nears_the_worst_margin_without_gradients(
    linear: Any, images: torch.Tensor, pair_ids: list[str], objective: Any, norm: Any, monkeypatch: Any
) -> None:
    encode = linear._image_features
    monkeypatch.setattr(linear, "_image_features", lambda batch: encode(batch.detach()))
    budgets = list(exact_distances(linear, images, norm) * (4 if norm == "l2" else 2.5))
    outcome = make_attack("square", steps=400).run(
        BareSubject(linear), objective, images, pair_ids, norm=norm, budget=budgets
    )
    assert all(record.success for record in outcome.records)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_square_accepts_only_improvements(
    linear: Any, images: torch.Tensor, pair_ids: list[str], norm: Any, monkeypatch: Any
) -> None:
    from smoothcert.attacks.campaign import Campaign

    history: list[np.ndarray] = []
    ask = Campaign.ask

    def watched(self: Campaign, *args: Any, **kwargs: Any) -> Any:
        answer = ask(self, *args, **kwargs)
        history.append(self.best_margin.numpy().copy())
        return answer

    monkeypatch.setattr(Campaign, "ask", watched)
    objective = FeatureDivergence(linear.encode_images(images), threshold=-1)
    outcome = make_attack("square", steps=200).run(
        BareSubject(linear), objective, images, pair_ids, norm=norm, budget=0.3 if norm == "l2" else 0.05
    )
    path = np.array(history)
    assert (np.diff(path, axis=0) <= 0).all()
    # it keeps finding improvements after the first tenth
    assert (path[-1] < path[20] - 1e-3).all()
    np.testing.assert_array_equal(path[-1], np.float32([record.margin for record in outcome.records]))


def test_squares_shrink_by_the_papers_schedule() -> None:
    # AutoAttack's 10,000 steps: p halves after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000
    expected = {
        0: 1,
        10: 1,
        11: 2,
        51: 4,
        201: 8,
        501: 16,
        1001: 32,
        2001: 64,
        4001: 128,
        6001: 256,
        8001: 512,
    }
    assert {step: round(1 / changed_share(step, 10_000)) for step in expected} == expected
    assert changed_share(26, 5000) == changed_share(52, 10_000)


def test_bumps_are_those_of_the_paper() -> None:
    # n = 2 on five by five: rings of sums of 1/(n + 1 - k)^2, written out
    edge, middle, peak = 1 / 9, 1 / 9 + 1 / 4, 1 / 9 + 1 / 4 + 1
    expected = np.full((5, 5), edge)
    expected[1:4, 1:4] = middle
    expected[2, 2] = peak
    np.testing.assert_allclose(bump(5, 5, torch.device("cpu")), expected, rtol=1e-6)
    square = two_sided_bump(5, torch.device("cpu"))
    assert float(torch.linalg.vector_norm(square)) == pytest.approx(1, abs=1e-6)
    assert (square[:2] > 0).all() and (square[2:] < 0).all()
