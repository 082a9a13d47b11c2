"""Judging perturbed images on fresh draws, with confidence bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from smoothcert.attacks.base import check_batch
from smoothcert.attacks.cosines import Interval, cosine_between, cosine_to_fixed, exact
from smoothcert.attacks.noise import NoiseKey
from smoothcert.attacks.objectives.base import Objective
from smoothcert.attacks.other_rules import RuleScore, judge_by_rules
from smoothcert.attacks.subjects import Subject
from smoothcert.attacks.textual import PairTexts, TextReferences, TextualScore, compare_with_texts
from smoothcert.errors import JobError

LEAST_DRAWS = 8
DEFAULT_DRAWS = 1000


@dataclass(frozen=True, slots=True)
class CleanDraws:
    """Draws of clean images, made once and used for every attack on the same pairs.

    Attributes:
        subject: name of the subject.
        pair_ids: the pairs.
        references: float64 (d,) each: the clean feature u(x), without noise.
        features: float32 (n, d) each: unit features of single draws; n is 1 where there is no noise.
    """

    subject: str
    pair_ids: tuple[str, ...]
    references: tuple[NDArray[np.float64], ...]
    features: tuple[NDArray[np.float32], ...]

    def of(self, row: int) -> _CleanPair:
        """What belongs to one pair."""
        return _CleanPair(self.pair_ids[row], self.references[row], self.features[row])


@dataclass(frozen=True, slots=True)
class _CleanPair:
    """The clean draws of one pair."""

    pair_id: str
    reference: NDArray[np.float64]
    features: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class AttackScore:
    """What one perturbation achieved on one subject, judged on draws that the attack never saw.

    Bounds are one-sided and hold with probability 1 - alpha each. An upper bound of an attacked cosine below
    the certificate's lower bound at that l2 norm is a violation.

    Attributes:
        pair_id: stable name of the pair.
        subject: name of the subject judged on.
        draws: fresh draws of the ``evaluate`` stream; 1 where there is no noise and the cosines are exact.
        alpha: failure probability of each bound.
        seed: root seed of the ``evaluate`` stream.
        clean_cosine: between m(x) and u(x).
        cosine_to_clean: between m(x') and the clean feature u(x): what FCSB bounds.
        cosine_to_smoothed: between m(x') and m(x): what the angular certificate bounds.
        clean_margin: the objective's margin of the mean feature without attack; negative: reached without any.
        margin: the objective's margin of the mean feature.
        success: margin < 0.
        texts: predicted classes, and what certificates about texts bound.
        rules: the same by the vote and by percentiles.
        error: why it could not be judged, else empty.
    """

    pair_id: str
    subject: str
    draws: int
    alpha: float
    seed: int
    clean_cosine: Interval
    cosine_to_clean: Interval
    cosine_to_smoothed: Interval
    clean_margin: float
    margin: float
    success: bool
    texts: TextualScore
    rules: RuleScore
    error: str = ""


def draw_clean(
    subject: Subject, images: torch.Tensor, pair_ids: Sequence[str], *, seed: int, draws: int = DEFAULT_DRAWS
) -> CleanDraws:
    """Draw features of clean images from the ``evaluate`` stream.

    Args:
        subject: what will be judged.
        images: clean x, float32 (B, 3, H, W) in [0,1].
        pair_ids: B names.
        seed: root seed.
        draws: a pair.

    Raises:
        JobError: fewer than 8 draws of a random subject.
    """
    if subject.stochastic and draws < LEAST_DRAWS:
        raise JobError(f"draws={draws} is too few to judge an attack", remedy="use 1000 or more")
    images = images.to(subject.encoder.device)
    with torch.no_grad():
        references = [
            subject.encoder.encode_images(image[None])[0].double().cpu().numpy() for image in images
        ]
    keys = [NoiseKey(seed, pair_id, "evaluate", ("clean",)) for pair_id in pair_ids]
    features = (drawn.cpu().numpy() for drawn in subject.draws_of_each(images, keys, draws))
    return CleanDraws(subject.name, tuple(pair_ids), tuple(references), tuple(features))


def score(
    subject: Subject,
    objective: Objective,
    attacked: torch.Tensor,
    clean: CleanDraws,
    *,
    attack: str,
    seed: int,
    draws: int = DEFAULT_DRAWS,
    alpha: float = 0.001,
    texts: TextReferences | None = None,
) -> tuple[AttackScore, ...]:
    """Judge perturbed images on fresh draws; on a subject other than the attacked one this is transfer.

    Args:
        subject: what is judged.
        objective: of the same pairs, for this subject's features.
        attacked: perturbed images, float32 (B, 3, H, W) in [0,1].
        clean: draws of the same pairs and subject.
        attack: the attack's name; it keys the draws.
        seed: root seed.
        draws: a pair.
        alpha: failure probability of each bound.
        texts: what to compare features with besides the objective, for the same pairs.

    Raises:
        JobError: the batch does not fit, or ``clean`` belongs to another subject, or there are too few draws.
    """
    if clean.subject != subject.name:
        raise JobError(
            f"clean draws of subject '{clean.subject}' cannot judge subject '{subject.name}'",
            remedy="draw clean features of the same subject",
        )
    if not 0 < alpha < 1:
        raise JobError(
            f"alpha={alpha} is not a probability", remedy="use a number between 0 and 1, e.g. 0.001"
        )
    if subject.stochastic and draws < LEAST_DRAWS:
        raise JobError(f"draws={draws} is too few to judge an attack", remedy="use 1000 or more")
    attacked = attacked.to(subject.encoder.device)
    check_batch(subject, objective, attacked, clean.pair_ids)
    scores = []
    keys = [NoiseKey(seed, pair_id, "evaluate", ("attacked", attack)) for pair_id in clean.pair_ids]
    for row, drawn in enumerate(subject.draws_of_each(attacked, keys, draws)):
        features = drawn.cpu().numpy()
        goal = objective.select(torch.tensor([row], device=attacked.device))
        compared = (texts or TextReferences()).of(row)
        scores.append(_judge(subject, goal, clean.of(row), features, compared, alpha, seed))
    return tuple(scores)


def _judge(
    subject: Subject,
    goal: Objective,
    clean: _CleanPair,
    attacked: NDArray[np.float32],
    texts: PairTexts,
    alpha: float,
    seed: int,
) -> AttackScore:
    reference, base = clean.reference, clean.features
    finite = all(np.isfinite(part).all() for part in (reference, base, attacked))
    unknown = Interval(float("nan"), -1.0, 1.0)
    cosines = (unknown, unknown, unknown)
    if finite and subject.stochastic:
        before, after = base.astype(np.float64), attacked.astype(np.float64)
        count = min(len(before), len(after))
        cosines = (
            cosine_to_fixed(before, reference, alpha),
            cosine_to_fixed(after, reference, alpha),
            cosine_between(after[:count], before[:count], alpha),
        )
    elif finite:
        cosine = exact(float(_cosine(attacked[0], reference)))
        cosines = (exact(1.0), cosine, cosine)
    margin = _margin(goal, attacked, subject) if finite else float("nan")
    return AttackScore(
        pair_id=clean.pair_id,
        subject=subject.name,
        draws=len(attacked),
        alpha=alpha,
        seed=seed,
        clean_cosine=cosines[0],
        cosine_to_clean=cosines[1],
        cosine_to_smoothed=cosines[2],
        clean_margin=_margin(goal, base, subject) if finite else float("nan"),
        margin=margin,
        success=margin < 0,
        texts=compare_with_texts(attacked, base, texts, alpha) if finite else TextualScore(),
        rules=judge_by_rules(attacked, base, reference, texts, alpha) if finite else RuleScore(),
        error="" if finite else "the encoder returned NaN or infinity",
    )


def _margin(goal: Objective, features: NDArray[np.float32], subject: Subject) -> float:
    mean = torch.from_numpy(features.mean(axis=0, dtype=np.float64).astype(np.float32))[None]
    return float(goal.margin(mean.to(subject.encoder.device))[0])


def _cosine(a: NDArray[np.float32], b: NDArray[np.float64]) -> float:
    first = a.astype(np.float64)
    return float(np.clip(first @ b / (np.linalg.norm(first) * np.linalg.norm(b)), -1.0, 1.0))
