"""Rows of whole runs on an encoder whose smoothed features are known exactly: they cover the truth at their rate.

Each statement of a row may be false with probability alpha. So over n pairs the number of false ones is at most
binomial(n, alpha), and exceeds its 1 - 1e-6 quantile with probability 1e-6: that is the false-failure rate of each
of the assertions below (about 130 of them).
"""

from __future__ import annotations

import functools
import runpy
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import binom

from smoothcert.encoders import KnownEncoder
from smoothcert.engine import Engine, RowMaker, encode_texts
from smoothcert.job import ZeroShotSection

make: Any = SimpleNamespace(
    **runpy.run_path(str(Path(__file__).parents[1] / "unit" / "engine" / "builders.py"))
)

PAIRS, ALPHA, SIGMA, K = 120, 0.05, 0.4, 2
RADII, COSINES = (0.05, 0.1, 0.2, 0.4), (0.3, 0.6, 0.9)
LABELS, POOL = tuple("abcde"), tuple(f"caption {i}" for i in range(6))
TEXTS = {label: 0.2 + 1.2 * i for i, label in enumerate(LABELS)} | {
    t: 0.5 + 0.9 * i for i, t in enumerate(POOL)
}
TARGETS = (
    {"certificate": "fcsb", "radius": 0.05, "cosine": 0.5},
    {"certificate": "angular", "radius": 0.1, "cosine": 0.9},
    {"certificate": "class", "radius": 0.02},
    {"certificate": "caption", "radius": 0.1, "cosine": 0.0},
    {"certificate": "retrieval", "radius": 0.02},
    {"certificate": "vote", "radius": 0.1},
    {"certificate": "retrieval_vote", "radius": 0.1},
    {"certificate": "clean_percentile", "radius": 0.1, "cosine": 0.6},
    {"certificate": "caption_percentile", "radius": 0.07, "cosine": -0.1},
    {"certificate": "class_percentile", "radius": 0.1, "cosine": 0.0},
)
PERCENTILE = 0.4
GRID = np.arange(-7.0, 7.0, 0.004)
"""Where noise may take t; what is said of a probability by it errs by at most 0.002 at each jump."""
NEAR = 0.01
ENCODERS = {
    # one norm for all; scores spread over an arc
    "rotating": KnownEncoder.rotating(1.5, text_angles=TEXTS, feature_dim=3, seed=5),
    # scores of two values, with many pairs near the step: the hardest case for variances
    "one step": KnownEncoder.staircase((0.1,), (0.4, 2.2), text_angles=TEXTS),
    # rare large deviations
    "stairs": KnownEncoder.staircase(
        (-0.9, -0.2, 0.5), (0.0, 0.4, 0.9, 2.9), text_angles=TEXTS, feature_dim=4, seed=2
    ),
}
FEATURES = {
    (id(encoder), text): feature
    for encoder in ENCODERS.values()
    for text, feature in zip(TEXTS, encoder.encode_texts(list(TEXTS)).double().numpy(), strict=True)
}


class Draws:
    """What single draws of an encoder show, as functions of t."""

    def __init__(self, encoder: KnownEncoder) -> None:
        t = GRID[:-1] + 0.002
        pixels = 0.5 + t[:, None, None, None] * encoder.direction
        self.features = encoder.clean_feature(pixels)
        texts = {text: self.features @ FEATURES[id(encoder), text] for text in TEXTS}
        self.similarity = texts
        classes = np.stack([texts[label] for label in LABELS])
        self.margin, self.rank = {}, {}
        for i, label in enumerate(LABELS):
            own = FEATURES[id(encoder), label]
            others = [(j, own - FEATURES[id(encoder), LABELS[j]]) for j in range(len(LABELS)) if j != i]
            gaps = np.stack([(classes[i] - classes[j]) / np.linalg.norm(gap) for j, gap in others])
            self.margin[label] = gaps.min(axis=0)
        for own in POOL:
            self.rank[own] = sum((texts[c] >= texts[own]).astype(int) for c in POOL if c != own) < K


DRAWS = {id(encoder): Draws(encoder) for encoder in ENCODERS.values()}


class Truth:
    """Exact answers about one input."""

    def __init__(self, encoder: KnownEncoder, pixels: np.ndarray, caption: str) -> None:
        self.encoder, self.pixels = encoder, pixels
        self.mean = encoder.smoothed_feature(pixels, SIGMA)
        self.clean = encoder.clean_feature(pixels)
        self.norm = float(encoder.smooth_norm(pixels, SIGMA))
        self.score = float(encoder.robustness_score(pixels, SIGMA))
        self.caption = self.feature(caption)
        self.own = caption
        self.draws = DRAWS[id(encoder)]
        self.place = float(encoder.position(pixels))
        self.mass: dict[float, np.ndarray] = {}
        # several statements of a row are about the same radius
        self.angular, self.to_clean, self.reached = (
            functools.cache(exact) for exact in (self._angular, self._to_clean, self._reached)
        )

    def least(self, event: np.ndarray, radius: float) -> float:
        """The smallest probability of an event, given on the grid of t, over 9 shifts within a radius."""
        if radius not in self.mass:
            shifts = np.linspace(-radius, radius, 9)[:, None]
            self.mass[radius] = np.diff(ndtr((GRID - self.place - shifts) / SIGMA), axis=1)
        return float((self.mass[radius] @ event).min())

    def keeps_percentile(self, score: np.ndarray, bound: float, radius: float) -> bool:
        """Whether P(score < bound) stays below the percentile."""
        return self.least(score >= bound - 1e-6, radius) >= 1 - PERCENTILE - NEAR

    def feature(self, text: str) -> np.ndarray:
        return FEATURES[id(self.encoder), text]

    def _angular(self, radius: float) -> float:
        return float(self.encoder.worst_cosine(self.pixels, radius, SIGMA))

    def _to_clean(self, radius: float) -> float:
        return float(self.encoder.worst_cosine(self.pixels, radius, SIGMA, self.clean))

    def _reached(self, radius: float) -> np.ndarray:
        """(401, d) means m(x + delta): only the part of delta along the encoder's direction matters."""
        shifts = np.linspace(-radius, radius, 401)[:, None, None, None] * self.encoder.direction
        return self.encoder.smoothed_feature(self.pixels / 255 + shifts, SIGMA)

    def similarity(self, radius: float) -> float:
        """Smallest <m(x + delta), caption>."""
        return float(np.min(self.reached(radius) @ self.caption))

    def overtaking(self, own: np.ndarray, rivals: list[str], radius: float) -> int:
        """How many rivals come before ``own`` somewhere within the radius."""
        differences = own - np.stack([self.feature(rival) for rival in rivals])
        return int(np.sum((self.reached(radius) @ differences.T).min(axis=0) < -1e-9))

    def keeps_class(self, label: str, radius: float) -> bool:
        return self.overtaking(self.feature(label), [c for c in LABELS if c != label], radius) == 0

    def keeps_rank(self, radius: float) -> bool:
        return self.overtaking(self.caption, [c for c in POOL if c != self.own], radius) < K

    def margins(self, own: np.ndarray, rivals: list[str], radius: float) -> np.ndarray:
        """Smallest margins over each rival within the radius, in order."""
        differences = own - np.stack([self.feature(rival) for rival in rivals])
        return np.sort(
            (self.reached(radius) @ differences.T).min(axis=0) / np.linalg.norm(differences, axis=1)
        )

    def margin(self, label: str) -> float:
        own = self.feature(label)
        differences = [own - self.feature(c) for c in LABELS if c != label]
        return min(float(self.mean @ d / np.linalg.norm(d)) for d in differences)


def false_statements(row: Any, truth: Truth, certify: Any) -> set[str]:
    """Names of what this row claims and is not so."""
    wrong = set()

    def claim(name: str, bound: float | None, exact: float) -> None:
        if bound is not None and not bound <= exact + 1e-9:
            wrong.add(name)

    claim("smooth_norm_lcb", row.smooth_norm_lcb, truth.norm)
    claim("robustness_score_lcb", row.robustness_score_lcb, truth.score)
    claim("caption_similarity_lcb", row.caption_similarity_lcb, float(truth.mean @ truth.caption))
    for i, radius in enumerate(RADII):
        claim("fcsb", row.fcsb[i], truth.to_clean(radius))
        claim("angular", row.angular[i], truth.angular(radius))
        claim("second_moment", row.second_moment[i], truth.angular(radius))
        claim("clean_reference", row.clean_reference[i], truth.to_clean(radius))
        claim("large_radius", row.large_radius[i], truth.to_clean(radius))
        claim("caption_bound", row.caption_bound[i], truth.similarity(radius))
        claim("clean_distribution", row.clean_distribution[i], truth.to_clean(radius))
        claim("caption_distribution", row.caption_distribution[i], truth.similarity(radius))
        rivals = [c for c in LABELS if c != row.predicted_label]
        exact = truth.margins(truth.feature(row.predicted_label), rivals, radius)[0]
        claim("class_distribution", row.class_distribution[i], exact)
        exact = truth.margins(truth.caption, [c for c in POOL if c != truth.own], radius)[K - 1]
        claim("retrieval_distribution", row.retrieval_distribution[i], exact)
    for i, cosine in enumerate(COSINES):
        for name, worst in (
            ("fcsb_radius", truth.to_clean),
            ("angular_radius", truth.angular),
            ("second_moment_radius", truth.angular),
        ):
            radius = getattr(row, name)[i]
            if radius is not None and not worst(radius) >= cosine - 1e-9:
                wrong.add(name)
    claim("class_margin_lcb", row.class_margin_lcb, truth.margin(row.predicted_label))
    label = row.predicted_label
    if row.certified_radius is not None and not truth.keeps_class(label, row.certified_radius):
        wrong.add("certified_radius")
    if row.retrieval_radius is not None and not truth.keeps_rank(row.retrieval_radius):
        wrong.add("retrieval_radius")
    scores = {
        "clean": truth.draws.features @ truth.clean,
        "caption": truth.draws.similarity[truth.own],
        "class": truth.draws.margin[row.vote_label],
    }
    for name, score in scores.items():
        for i, radius in enumerate(RADII):
            bound = getattr(row, f"{name}_percentile")[i]
            if bound is not None and not truth.keeps_percentile(score, bound, radius):
                wrong.add(f"{name}_percentile")
    for cosine, radius in zip(COSINES, row.clean_percentile_radius, strict=True):
        if radius is not None and not truth.keeps_percentile(scores["clean"], cosine, radius):
            wrong.add("clean_percentile_radius")
    votes = truth.draws.margin[row.vote_label] > 0
    kept = truth.draws.rank[truth.own]
    for name, event in (("vote", votes), ("retrieval_vote", kept)):
        claim(f"{name}_share_lcb", getattr(row, f"{name}_share_lcb"), truth.least(event, 0.0) + NEAR)
        radius = getattr(row, f"{name}_radius")
        if radius is not None and truth.least(event, radius) < 0.5 - NEAR:
            wrong.add(f"{name}_radius")
    exact = {
        "vote": lambda t: truth.least(votes, t.radius) >= 0.5 - NEAR,
        "retrieval_vote": lambda t: truth.least(kept, t.radius) >= 0.5 - NEAR,
        "fcsb": lambda t: truth.to_clean(t.radius) >= t.cosine,
        "angular": lambda t: truth.angular(t.radius) >= t.cosine,
        "class": lambda t: truth.keeps_class(label, t.radius),
        "caption": lambda t: truth.similarity(t.radius) >= t.cosine - 1e-9,
        "retrieval": lambda t: truth.keeps_rank(t.radius),
    } | {
        f"{name}_percentile": lambda t, score=score: truth.keeps_percentile(score, t.cosine, t.radius)
        for name, score in scores.items()
    }
    for target, decision in zip(certify.targets, row.target_decision, strict=True):
        if decision == "certified" and not exact[target.certificate](target):
            wrong.add(f"target {target.name}")
    return wrong


def certified(encoder: KnownEncoder, **changes: Any) -> tuple[list[Any], list[Truth], Any]:
    certify = make.section(
        **(
            {
                "sigma": SIGMA,
                "alpha": ALPHA,
                "pilot_draws": 15,
                "radii": RADII,
                "cosines": COSINES,
                "rivals": 2,
                "percentile": PERCENTILE,
                "second_moment": True,
            }
            | changes
        )
    )
    texts = encode_texts(
        encoder, zero_shot=ZeroShotSection(labels=LABELS, prompts=("{label}",)), pool=POOL, retrieval_k=K
    )
    rng = np.random.default_rng(1)
    # brighter and darker images, so that t covers the encoder's profile
    level = rng.integers(0, 96, (PAIRS, 1, 1, 1))
    images = (level + rng.integers(0, 160, (PAIRS, 3, *make.SIZE))).astype(np.uint8)
    captions = [POOL[i % len(POOL)] for i in range(PAIRS)]
    outcomes = make.run(encoder, certify, make.pairs(images, captions), texts, slots=32, chunk=16)
    rows = RowMaker(encoder, certify, texts, Engine(encoder, certify, texts).layout).rows("u0", outcomes)
    assert len(rows) == PAIRS and all(row.status == "ok" for row in rows)
    numbers = [int(row.pair_id.removeprefix("data#")) for row in rows]
    return rows, [Truth(encoder, images[n], captions[n]) for n in numbers], certify


def check(rows: list[Any], truths: list[Truth], certify: Any) -> Counter[str]:
    limit = binom.isf(1e-6, PAIRS, ALPHA)
    misses: Counter[str] = Counter()
    for row, truth in zip(rows, truths, strict=True):
        misses.update(false_statements(row, truth, certify))
    assert not {name: count for name, count in misses.items() if count > limit}
    return misses


@pytest.mark.parametrize("name", ENCODERS)
def test_fixed_draws(name):
    rows, truths, certify = certified(ENCODERS[name], max_draws=80)
    check(rows, truths, certify)
    # the bounds say something, or their coverage would be no achievement
    for column in (
        "angular",
        "second_moment",
        "fcsb",
        "large_radius",
        "clean_distribution",
        "class_distribution",
    ):
        assert sum(getattr(row, column)[0] is not None for row in rows) > PAIRS / 10, column
    for column in ("certified_radius", "vote_radius"):
        assert sum(getattr(row, column) is not None for row in rows) > PAIRS / 10, column
    for column in ("clean_percentile", "caption_percentile", "class_percentile"):
        assert sum(getattr(row, column)[1] is not None for row in rows) > PAIRS / 10, column
    # and this check would see a bound that is none: the sample mean in the place of its lower bound
    limit = binom.isf(1e-6, PAIRS, ALPHA)
    assert sum(row.robustness_score > t.score for row, t in zip(rows, truths, strict=True)) > limit
    assert sum(row.smooth_norm > t.norm for row, t in zip(rows, truths, strict=True)) > limit


@pytest.mark.parametrize("name", ENCODERS)
def test_adaptive_draws(name):
    """Stopping when the targets are decided is stopping at a moment that the scores have chosen."""
    rows, truths, certify = certified(ENCODERS[name], max_draws=240, targets=TARGETS)
    check(rows, truths, certify)
    decisions = Counter(decision for row in rows for decision in row.target_decision)
    assert decisions["certified"] > PAIRS / 4 and decisions["refuted"] > PAIRS / 4
    # an e-value below its bound is what "certified" means, and nothing else is called so
    for row in rows:
        for decision, log_e in zip(row.target_decision, row.log_e_value, strict=True):
            assert (decision == "certified") == (log_e >= np.log(1 / ALPHA))


@pytest.mark.parametrize("method", ["hoeffding", "empirical_bernstein"])
def test_methods_for_a_fixed_number_of_draws(method):
    rows, truths, certify = certified(ENCODERS["one step"], max_draws=120, method=method)
    check(rows, truths, certify)
