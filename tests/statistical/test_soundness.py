"""No certificate is ever exceeded: brute force over encoders whose smoothed features are known exactly.

Encoders are piecewise constant in the noise: unit vectors on the intervals of a line, or on the rectangles of
a plane. Their smoothed features are sums of Gaussian masses, so every claim can be checked without draws, and
nothing here is left to chance: the generator is seeded, the tolerance is that of floating point, and one
exceeded bound fails. Some encoders are random, some adversarial: threshold functions that jump between
opposed features, where the bounds are nearly attained.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.special import ndtr

from smoothcert.certificates import (
    angular_bound,
    angular_radius,
    clean_reference_bound,
    dual_bound,
    dual_direction,
    fcsb,
    fcsb_radius,
    large_radius_bound,
    margin_radius,
    projection_bound,
    rank_radius,
)

SHIFTS = np.array([0.05, 0.2, 0.4, 0.7, 1.0, 1.6, 2.4])
# ndtr is accurate to 1e-15; sums of up to 60 pieces lose a little more.
TOLERANCE = 1e-11


@dataclass(frozen=True)
class Encoders:
    """Encoders of noise in units of sigma, the input being 0.

    Attributes:
        edges: (E, dimensions, pieces + 1) borders of the pieces along each dimension, -inf to inf.
        features: (E, pieces, ..., d) unit vectors, one per piece (or rectangle).
    """

    edges: np.ndarray
    features: np.ndarray

    def smoothed(self, shift: np.ndarray) -> np.ndarray:
        """m at shifts (E, dimensions): (E, d)."""
        masses = np.diff(ndtr(self.edges - shift[:, :, None]), axis=2)
        if masses.shape[1] == 1:
            return np.einsum("ep,epd->ed", masses[:, 0], self.features)
        return np.einsum("ep,eq,epqd->ed", masses[:, 0], masses[:, 1], self.features)

    @property
    def here(self) -> np.ndarray:
        return self.smoothed(np.zeros(self.edges.shape[:2]))

    def moved(self, shift: np.ndarray) -> list[np.ndarray]:
        """m at shifts of the given length (E,), in every direction that is tried."""
        if self.edges.shape[1] == 1:
            return [self.smoothed(sign * shift[:, None]) for sign in (1.0, -1.0)]
        angles = np.linspace(0, 2 * np.pi, 8, endpoint=False) + 0.1
        return [self.smoothed(shift[:, None] * np.array([np.cos(a), np.sin(a)])) for a in angles]


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def borders(generator: np.random.Generator, shape: tuple[int, ...], pieces: int) -> np.ndarray:
    inner = np.sort(
        generator.normal(0, generator.uniform(0.2, 2.5, (*shape[:1], 1, 1)), (*shape, pieces - 1)), axis=-1
    )
    ends = np.full((*shape, 1), np.inf)
    return np.concatenate([-ends, inner, ends], axis=-1)


def on_a_line(count: int, pieces: int, d: int, seed: int) -> Encoders:
    generator = np.random.default_rng(seed)
    common = generator.normal(size=(count, 1, d))
    spread = generator.choice([0.2, 0.6, 1.5, 10.0], (count, 1, 1))
    return Encoders(
        borders(generator, (count, 1), pieces),
        unit(common + spread * generator.normal(size=(count, pieces, d))),
    )


def in_the_plane(count: int, pieces: int, d: int, seed: int) -> Encoders:
    generator = np.random.default_rng(seed)
    common = generator.normal(size=(count, 1, 1, d))
    spread = generator.choice([0.2, 0.6, 1.5], (count, 1, 1, 1))
    features = unit(common + spread * generator.normal(size=(count, pieces, pieces, d)))
    return Encoders(borders(generator, (count, 2), pieces), features)


def adversarial(count: int, seed: int) -> Encoders:
    """The extremal encoders of T3 in 60 steps, and plain thresholds between opposed features."""
    generator = np.random.default_rng(seed)
    rho = generator.choice(SHIFTS, (count, 1))
    edges = np.concatenate(
        [np.full((count, 1), -np.inf), np.linspace(-4, 5, 59) + 0 * rho, np.full((count, 1), np.inf)], 1
    )
    middle = np.concatenate(
        [edges[:, 1:2] - 0.1, (edges[:, 1:-2] + edges[:, 2:-1]) / 2, edges[:, -2:-1] + 0.1], 1
    )
    ratio = np.exp(rho * middle - rho**2 / 2)
    a = rho * np.exp(generator.uniform(-4, 3, (count, 1)))
    b = -np.exp(rho**2 * generator.uniform(0.4, 1.1, (count, 1)))
    features = unit(np.stack([a + 0 * ratio, ratio + b], axis=-1))
    threshold = np.arange(count) % 3 == 0
    away = unit(generator.normal(size=(count, 2)))
    cut = (middle > generator.normal(0, 1, (count, 1)))[..., None]
    features = np.where(threshold[:, None, None], np.where(cut, away[:, None], -away[:, None]), features)
    return Encoders(edges[:, None], features)


FAMILIES = {
    "line, 2 pieces": lambda: on_a_line(1500, 2, 2, 1),
    "line, 4 pieces": lambda: on_a_line(1500, 4, 3, 2),
    "line, 9 pieces": lambda: on_a_line(1000, 9, 5, 3),
    "plane": lambda: in_the_plane(600, 4, 3, 4),
    "adversarial": lambda: adversarial(1500, 5),
}


@pytest.fixture(scope="module", params=FAMILIES)
def encoders(request: pytest.FixtureRequest) -> Encoders:
    return FAMILIES[request.param]()


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sum(unit(a) * unit(b), axis=-1)


def below(bound: np.ndarray, truth: np.ndarray) -> bool:
    """Every bound that says something holds."""
    return bool(np.all((bound <= truth + TOLERANCE)[~np.isnan(bound)]))


def test_enough_is_tried() -> None:
    """At least 100,000 pairs of encoder and shift, through all of T1, T2, T3, T4, T5 and T6."""
    pairs = 0
    for make in FAMILIES.values():
        tried = make()
        pairs += len(tried.edges) * len(SHIFTS) * len(tried.moved(np.zeros(len(tried.edges))))
    assert pairs >= 100_000


def test_cosines_and_projections(encoders: Encoders) -> None:
    m, generator = encoders.here, np.random.default_rng(0)
    n = np.minimum(np.linalg.norm(m, axis=1), 1.0)
    clean = encoders.features.reshape(len(m), -1, m.shape[1])[:, 0]
    v = unit(m + 0.5 * generator.normal(size=m.shape))
    on_clean, on_v = np.sum(m * clean, axis=1), np.sum(m * v, axis=1)
    said = vacuous = 0
    for rho in SHIFTS:
        t1 = projection_bound(on_v, rho, 1.0)
        t2 = fcsb((1 + on_clean) / 2, rho, 1.0)
        t3 = angular_bound(n, rho, 1.0)
        t5 = clean_reference_bound(on_clean, n, rho, 1.0, smooth_norm_upper=n)
        for moved in encoders.moved(np.full(len(m), rho)):
            assert below(t1, np.sum(moved * v, axis=1))
            assert below(t2, cosine(moved, clean))
            assert below(t3, cosine(moved, m))
            assert below(t5, cosine(moved, clean))
        said, vacuous = said + int(np.isfinite(t3).sum()), vacuous + int(np.isnan(t2).sum())
        # never a negative number where nothing is certified
        for bound in (t2, t3, t5):
            assert np.all(np.nan_to_num(bound, nan=0.0) >= 0)
    assert said > len(m) and vacuous > 0


def test_the_search_has_teeth() -> None:
    """Claims a little too strong are caught: a shorter shift in T3, a larger radius in T4, a negative T2."""
    tried, rho = adversarial(1500, 5), 0.7
    m = tried.here
    n = np.minimum(np.linalg.norm(m, axis=1), 1.0)
    too_strong = angular_bound(n, 0.97 * rho, 1.0)
    assert not all(below(too_strong, cosine(moved, m)) for moved in tried.moved(np.full(len(m), rho)))
    v = unit(m)
    radius = np.nan_to_num(margin_radius(-m[:, 1], n, v[:, 1], 1.0))
    assert any(np.any((moved[:, 1] > TOLERANCE) & (radius > 0)) for moved in tried.moved(1.03 * radius))
    clean = tried.features[:, 0]
    negative = projection_bound(np.sum(m * clean, axis=1), 1.0, 1.0)
    exceeded = [(negative < 0) & (cosine(moved, clean) < negative) for moved in tried.moved(np.ones(len(m)))]
    assert np.any(exceeded)


def test_staircase(encoders: Encoders) -> None:
    m = encoders.here
    v = unit(m)
    flat = encoders.features.reshape(len(m), -1, m.shape[1])
    along = np.einsum("epd,ed->ep", flat, v)
    masses = np.diff(ndtr(encoders.edges), axis=2)
    weight = (
        masses[:, 0]
        if masses.shape[1] == 1
        else (masses[:, 0, :, None] * masses[:, 1, None, :]).reshape(len(m), -1)
    )
    levels = np.linspace(-0.5, 0.95, 7)
    exceedance = np.minimum(np.einsum("ep,epc->ec", weight, along[:, :, None] >= levels), 1.0)
    for rho in SHIFTS:
        bound = large_radius_bound(exceedance, levels, rho, 1.0)
        for moved in encoders.moved(np.full(len(m), rho)):
            assert below(bound, np.sum(moved * v, axis=1))


def test_radii(encoders: Encoders) -> None:
    """At the certified radius, and inside it, what is certified holds."""
    m, generator = encoders.here, np.random.default_rng(1)
    n = np.minimum(np.linalg.norm(m, axis=1), 1.0)
    clean = encoders.features.reshape(len(m), -1, m.shape[1])[:, 0]
    on_clean = np.sum(m * clean, axis=1)
    tau = generator.choice([0.0, 0.5, 0.8], len(m))
    angular, t2 = angular_radius(n, tau, 1.0), fcsb_radius((1 + on_clean) / 2, tau, 1.0)
    for share in (1.0, 0.6):
        for radius, reference in ((angular, m), (t2, clean)):
            for moved in encoders.moved(share * np.nan_to_num(radius)):
                assert np.all((cosine(moved, reference) >= tau - TOLERANCE)[~np.isnan(radius)])
    w = unit(generator.normal(size=m.shape))
    w *= -np.sign(np.sum(m * w, axis=1, keepdims=True))
    v = unit(m + 0.4 * n[:, None] * generator.normal(size=m.shape))
    alignment = np.sum(v * w, axis=1)
    both = margin_radius(-np.sum(m * w, axis=1), np.sum(m * v, axis=1), alignment, 1.0)
    alone = margin_radius(None, np.sum(m * v, axis=1), alignment, 1.0)
    assert np.isfinite(both).mean() > 0.5 and np.isfinite(alone).any()
    for radius in (both, alone):
        for share in (1.0, 0.5):
            for moved in encoders.moved(share * np.nan_to_num(radius)):
                assert np.all((np.sum(moved * w, axis=1) <= TOLERANCE)[~np.isnan(radius)])


@pytest.mark.parametrize("rho", [0.2, 1.0])
def test_dual_bounds_and_directions(encoders: Encoders, rho: float) -> None:
    generator = np.random.default_rng(2)
    m = encoders.here
    vectors = unit(generator.normal(size=(len(m), 4, m.shape[1])))
    vectors[:, 1] = unit(m + 0.3 * np.linalg.norm(m, axis=1, keepdims=True) * vectors[:, 1])
    vectors[:, 2] = unit(-vectors[:, 0] + 0.1 * vectors[:, 2])
    gram = np.einsum("nid,njd->nij", vectors, vectors)
    known = np.clip(np.einsum("nid,nd->ni", vectors[:, 1:], m), -1, 1)
    bound = dual_bound(gram, known, rho, 1.0)
    # estimates that are off choose other directions, none of them unsound
    estimates = np.clip(known + generator.normal(0, 0.1, known.shape), -1, 1)
    claims = []
    for level in (0.0, -0.5, 0.4):
        weights, needed = dual_direction(gram, estimates, rho, 1.0, level)
        claims.append(
            (level, np.einsum("ni,ni->n", weights, np.einsum("nid,nd->ni", vectors[:, 1:], m)) >= needed)
        )
    assert any(proved.any() for _, proved in claims)
    for moved in encoders.moved(np.full(len(m), rho)):
        reached = np.sum(moved * vectors[:, 0], axis=1)
        assert np.all(reached <= bound + TOLERANCE)
        for level, proved in claims:
            assert np.all(reached[proved] <= level + TOLERANCE)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_ranks(encoders: Encoders, k: int) -> None:
    """Within the rank radius at most k - 1 of five rivals overtake."""
    generator = np.random.default_rng(3)
    m = encoders.here[:600]
    shown = Encoders(encoders.edges[:600], encoders.features[:600])
    w = unit(generator.normal(size=(len(m), 5, m.shape[1])))
    margin = -np.einsum("nid,nd->ni", w, m)
    v = unit(m)
    n = np.minimum(np.linalg.norm(m, axis=1), 1.0)
    each = margin_radius(margin, n[:, None], np.einsum("nd,nid->ni", v, w), 1.0)
    radius = rank_radius(each, k)
    for moved in shown.moved(np.nan_to_num(radius)):
        overtaken = np.sum(np.einsum("nid,nd->ni", w, moved) > TOLERANCE, axis=1)
        assert np.all((overtaken < k)[~np.isnan(radius)])
