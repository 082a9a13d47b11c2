from __future__ import annotations

import numpy as np
import pytest
import torch

from smoothcert.attacks import (
    OBJECTIVES,
    CaptionSuppression,
    ClassificationMargin,
    FeatureDivergence,
    FeatureMatching,
    Objective,
    ObjectiveInputs,
    RetrievalDisplacement,
    build_objective,
)
from smoothcert.errors import JobError


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cosine(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    a, b = a.double().numpy(), b.double().numpy()
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_divergence_and_caption_are_cosines() -> None:
    features, reference = random(6, 4), random(6, 4, seed=1)
    for objective in (FeatureDivergence(reference, 0.1), CaptionSuppression(reference, 0.1)):
        np.testing.assert_allclose(objective.loss(features), -cosine(features, reference), atol=1e-6)
        np.testing.assert_allclose(objective.margin(features), cosine(features, reference) - 0.1, atol=1e-6)
        assert objective.success(features).tolist() == (cosine(features, reference) < 0.1).tolist()


def test_matching_succeeds_where_the_target_is_nearer() -> None:
    features, target, own = random(20, 4), random(20, 4, seed=1), random(20, 4, seed=2)
    objective = FeatureMatching(target, own)
    nearer = cosine(features, target) > cosine(features, own)
    assert objective.success(features).tolist() == nearer.tolist()
    np.testing.assert_allclose(objective.loss(features), cosine(features, target), atol=1e-6)


def test_losses_of_classification_are_those_of_the_papers() -> None:
    # Orthonormal classes: logits are the coordinates of the unit feature.
    logits = torch.tensor([[0.7, 0.5, 0.4, 0.3, 0.1]])
    logits = logits / torch.linalg.vector_norm(logits)
    z = logits[0].double().numpy()
    objective = ClassificationMargin(torch.eye(5), torch.tensor([0]), logit_scale=10.0)
    ce = -np.log(np.exp(10 * z[0]) / np.exp(10 * z).sum())
    assert np.log1p(np.exp(float(objective.loss(logits)))) == pytest.approx(ce, abs=1e-5)
    # cosines far apart, CLIP's scale: cross-entropy is flat in float32, its log-odds are not
    sure = torch.tensor([[1.0, -0.2, 0.0, 0.0, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(
        ClassificationMargin(torch.eye(5), torch.tensor([0])).loss(sure).sum(), sure
    )
    assert gradient.abs().max() > 1
    dlr = objective.with_loss("dlr")
    assert float(dlr.loss(logits)) == pytest.approx(-(z[0] - z[1]) / (z[0] - z[2]), abs=1e-5)
    # a wrong label: the best class is another one
    wrong = ClassificationMargin(torch.eye(5), torch.tensor([2]), kind="dlr")
    assert float(wrong.loss(logits)) == pytest.approx(-(z[2] - z[0]) / (z[0] - z[2]), abs=1e-5)
    targeted = objective.with_loss("dlr-targeted", torch.tensor([3]))
    expected = -(z[0] - z[3]) / (z[0] - (z[2] + z[3]) / 2)
    assert float(targeted.loss(logits)) == pytest.approx(expected, abs=1e-5)
    for kind in (objective, dlr, targeted):
        assert float(kind.margin(logits)) == pytest.approx(z[0] - z[1], abs=1e-6)


def test_classification_success_is_a_strictly_higher_rival() -> None:
    objective = ClassificationMargin(torch.eye(3), torch.tensor([0, 0, 0]))
    features = torch.tensor([[1.0, 0.9, 0.0], [1.0, 1.0, 0.0], [1.0, 1.1, 0.0]])
    assert objective.success(features).tolist() == [False, False, True]
    assert objective.logits(features).argmax(-1)[[0, 2]].tolist() == [0, 1]


def test_rival_targets_come_nearest_first_and_leave_out_the_label() -> None:
    objective = ClassificationMargin(torch.eye(4), torch.tensor([1]))
    features = torch.tensor([[0.1, 0.9, 0.3, 0.2]])
    assert [int(objective.rival_targets(features, rank)) for rank in (1, 2, 3)] == [2, 3, 0]


@pytest.mark.parametrize("k", [1, 3])
def test_retrieval_margin_agrees_with_a_sorted_ranking(k: int) -> None:
    pool, features = random(12, 4), random(10, 4, seed=1)
    own = torch.arange(10) % 12
    rivals = torch.ones(10, 12, dtype=torch.bool)
    rivals[torch.arange(10), own] = False
    objective = RetrievalDisplacement(pool, pool[own], rivals, k)
    similarity = cosine(features[:, None], pool[None])
    ranks = [
        int(np.flatnonzero(np.argsort(-row) == place)[0]) + 1
        for row, place in zip(similarity, own, strict=True)
    ]
    assert objective.rank(features).tolist() == ranks
    assert objective.success(features).tolist() == [rank > k for rank in ranks]


# DLR is flat where the label is third, so these are classes that win.
WON = (random(6, 4, seed=9) @ torch.nn.functional.normalize(random(5, 4)).T).argmax(1)


def every_objective() -> list[Objective]:
    rivals = ~torch.eye(6, dtype=torch.bool)
    return [
        FeatureDivergence(random(6, 4)),
        CaptionSuppression(random(6, 4)),
        FeatureMatching(random(6, 4), random(6, 4, seed=5)),
        ClassificationMargin(random(5, 4), torch.arange(6) % 5),
        ClassificationMargin(random(5, 4), WON, kind="dlr"),
        ClassificationMargin(random(5, 4), torch.arange(6) % 5, "dlr-targeted", (torch.arange(6) + 1) % 5),
        RetrievalDisplacement(random(6, 4), random(6, 4), rivals, 2),
    ]


@pytest.mark.parametrize("objective", every_objective(), ids=lambda o: o.name)
def test_selected_rows_answer_as_in_the_batch(objective: Objective) -> None:
    features, rows = random(6, 4, seed=9), torch.tensor([4, 1])
    assert len(objective) == 6 and len(objective.select(rows)) == 2
    for ask in ("loss", "margin"):
        torch.testing.assert_close(
            getattr(objective.select(rows), ask)(features[rows]), getattr(objective, ask)(features)[rows]
        )


@pytest.mark.parametrize("objective", every_objective(), ids=lambda o: o.name)
def test_norm_is_irrelevant_nan_is_no_success_and_losses_have_gradients(objective: Objective) -> None:
    features = random(6, 4, seed=9).requires_grad_(True)
    torch.testing.assert_close(objective.margin(features * 0.01), objective.margin(features))
    assert not objective.success(torch.full((6, 4), torch.nan)).any()
    (gradient,) = torch.autograd.grad(objective.loss(features).sum(), features)
    assert (gradient.abs().sum(1) > 0).all()


def test_each_objective_says_what_the_source_lacks() -> None:
    bare = ObjectiveInputs(clean=random(3, 4))
    lacking = {
        "matching": "needs a target",
        "caption": "needs a caption",
        "classification": "needs class names",
        "retrieval": "needs a pool",
    }
    for name in OBJECTIVES:
        if name in lacking:
            with pytest.raises(JobError, match=lacking[name]):
                build_objective(name, bare)
        else:
            assert build_objective(name, bare).name == name
    with pytest.raises(JobError, match="needs a label"):
        build_objective("classification", ObjectiveInputs(clean=random(3, 4), class_features=random(5, 4)))
    with pytest.raises(JobError, match="did you mean 'divergence'"):
        build_objective("divergance", bare)


def test_building_uses_what_is_there() -> None:
    inputs = ObjectiveInputs(
        clean=random(3, 4),
        captions=random(3, 4, seed=1),
        labels=torch.tensor([0, 1, 2]),
        class_features=random(5, 4, seed=2),
        targets=random(3, 4, seed=3),
        pool=random(7, 4, seed=4),
    )
    for name in OBJECTIVES:
        assert build_objective(name, inputs).name == name
    matching = build_objective("matching", inputs)
    assert isinstance(matching, FeatureMatching) and matching.own is inputs.clean


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FeatureDivergence(random(2, 3), 1.5), "threshold=1.5"),
        (lambda: CaptionSuppression(random(2, 3), float("nan")), "threshold=nan"),
        (lambda: ClassificationMargin(random(1, 3), torch.tensor([0])), "at least two classes, not 1"),
        (lambda: ClassificationMargin(random(4, 3), torch.tensor([0, 4])), "labels from 0 to 4"),
        (lambda: ClassificationMargin(random(4, 3), torch.tensor([-1])), "labels from -1"),
        (lambda: ClassificationMargin(random(4, 3), torch.tensor([0]), "dlr-targeted"), "needs targets"),
        (
            lambda: RetrievalDisplacement(random(4, 3), random(1, 3), torch.zeros(1, 4, dtype=torch.bool)),
            "has 0 other captions",
        ),
        (
            lambda: RetrievalDisplacement(random(4, 3), random(1, 3), torch.ones(1, 4, dtype=torch.bool), 0),
            "k=0",
        ),
    ],
)
def test_values_out_of_domain_are_named(make: object, message: str) -> None:
    with pytest.raises(JobError, match=message):
        make()  # type: ignore[operator]
