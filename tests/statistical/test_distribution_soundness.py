"""T8 is never exceeded: brute force over encoders whose law, and whose smoothed features, are known exactly.

Encoders are constant on the intervals of a line or on the rectangles of a plane, so every mean is a sum of Gaussian
masses and nothing is left to chance: the generator is seeded, the tolerance is that of floating point, and one
exceeded bound fails. ``SMOOTHCERT_TEST_SCALE`` multiplies how many encoders are tried (1 by default: over 100,000 pairs
of encoder and shift, each against every scalar).

Then from draws: bounds and radii miss no more often than alpha. Those counts fail on sound code with probability at
most 1e-6 over the choice of seeds, and are never retried.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from smoothcert.certificates import MarginScalar, choose_scalar, margin_radius
from smoothcert.statistics import lower_bound, nested_radius

SCALE = int(os.environ.get("SMOOTHCERT_TEST_SCALE", "1"))
SHIFTS = (0.1, 0.4, 0.8, 1.3, 2.2)
TOLERANCE = 1e-10
PILOT_ANGLE = 0.6  # of v from -w = (1, 0, ...), in the plane of the first two axes


@dataclass(frozen=True)
class Encoders:
    """Encoders of noise in units of sigma: features (E, P, d) on pieces with edges (E, dimensions, ... + 1)."""

    edges: np.ndarray
    features: np.ndarray

    def masses(self, shift: np.ndarray) -> np.ndarray:
        """Probability of each piece (E, P) at a shift (dimensions,)."""
        along = np.diff(ndtr(self.edges - shift[:, None]), axis=2)
        if along.shape[1] == 1:
            return along[:, 0]
        return (along[:, 0, :, None] * along[:, 1, None, :]).reshape(len(along), -1)

    def shifts(self, rho: float) -> Iterator[np.ndarray]:
        """Shifts of one length, in every direction that is tried."""
        if self.edges.shape[1] == 1:
            yield from (np.array([rho]), np.array([-rho]))
        else:
            for angle in np.linspace(0, 2 * np.pi, 6, endpoint=False) + 0.2:
                yield rho * np.array([np.cos(angle), np.sin(angle)])


def borders(generator: np.random.Generator, shape: tuple[int, int], pieces: int) -> np.ndarray:
    scale = generator.uniform(0.2, 2.5, (shape[0], 1, 1))
    inner = np.sort(generator.normal(0, scale, (*shape, pieces - 1)), axis=-1)
    ends = np.full((*shape, 1), np.inf)
    return np.concatenate([-ends, inner, ends], axis=-1)


def random_features(generator: np.random.Generator, count: int, pieces: int, d: int) -> np.ndarray:
    spread = generator.choice([0.2, 0.6, 1.5, 10.0], (count, 1, 1))
    features = generator.normal(size=(count, 1, d)) + spread * generator.normal(size=(count, pieces, d))
    features[..., 0] += generator.choice([0.0, 1.0, 3.0], (count, 1))
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def sorted_by_margin(features: np.ndarray) -> np.ndarray:
    """The worst order: the margin falls along the line."""
    order = np.argsort(-features[..., 0], axis=1)
    return np.take_along_axis(features, order[..., None], axis=1)


def extremal(count: int, seed: int) -> Encoders:
    """Margins that fall with the noise along smooth curves, as the suprema of random scalars do, on 60 intervals."""
    generator = np.random.default_rng(seed)
    edges = np.concatenate([[-np.inf], np.linspace(-4, 5, 59), [np.inf]])
    middle = np.concatenate([[-4.1], (edges[1:-2] + edges[2:-1]) / 2, [5.1]])
    center, spread = (
        generator.uniform(-0.2, 0.9, (count, 1)),
        generator.choice([0.0, 0.05, 0.2, 0.6], (count, 1)),
    )
    margins = np.clip(center - spread * middle, -1, 1)
    jump = generator.uniform(-1, 3.5, (count, 1))
    margins = np.where(middle > jump, -1.0, margins)
    features = np.stack([margins, np.sqrt(1 - margins**2)], axis=-1)
    return Encoders(np.broadcast_to(edges, (count, 1, 61)), features)


def families() -> dict[str, Encoders]:
    generator = np.random.default_rng(8)
    line = Encoders(borders(generator, (4000 * SCALE, 1), 6), random_features(generator, 4000 * SCALE, 6, 3))
    fall = borders(generator, (4000 * SCALE, 1), 8)
    plane = borders(generator, (1000 * SCALE, 2), 4)
    return {
        "line": line,
        "falling": Encoders(fall, sorted_by_margin(random_features(generator, len(fall), 8, 2))),
        "plane": Encoders(plane, random_features(generator, len(plane), 16, 4)),
        "extremal": extremal(1000 * SCALE, 9),
    }


def scalars() -> MarginScalar:
    """Scalars of every kind, of sizes that are worth something; alignment is that of PILOT_ANGLE."""
    generator = np.random.default_rng(5)
    rows, k = 40, 4
    kind = np.arange(rows) % 4
    z = np.sort(generator.uniform(-2.5, 2.5, (rows, k + 1)), axis=1)[:, ::-1]
    slopes = np.exp(z * generator.choice([0.2, 0.6, 1.2, 2.0], (rows, 1)))
    slopes[kind == 1] = slopes[kind == 1, 2:3]
    return MarginScalar(
        np.full(rows, -np.cos(PILOT_ANGLE)),
        np.sort(generator.uniform(-0.6, 0.95, (rows, k)), axis=1),
        slopes,
        np.where(kind >= 1, generator.exponential(size=rows), 0.0),
        np.where(kind >= 2, generator.exponential(size=rows), 0.0),
        generator.uniform(0, 0.9, rows),
        np.where((kind == 3)[:, None], 0.3 * generator.exponential(size=(rows, k)), 0.0),
    )


def test_no_mean_proves_too_much() -> None:
    """E_x h - C never exceeds <m(x+delta), -w>: all scalars, all encoders, all shifts; and comes near it."""
    h, pairs, nearest = scalars(), 0, np.inf
    constants = {rho: h.constant(rho, 1.0) for rho in SHIFTS}
    for encoders in families().values():
        margins = encoders.features[..., 0]
        along = np.cos(PILOT_ANGLE) * margins + np.sin(PILOT_ANGLE) * encoders.features[..., 1]
        shape = margins.shape
        here = encoders.masses(np.zeros(encoders.edges.shape[1]))
        known = np.stack(
            [
                np.sum(
                    h.take(slice(i, i + 1))
                    .values(margins.reshape(1, -1), along.reshape(1, -1))
                    .reshape(shape)
                    * here,
                    axis=1,
                )
                for i in range(len(h.alignment))
            ]
        )
        for rho in SHIFTS:
            proved = np.max(known - constants[rho][:, None], axis=0)
            for shift in encoders.shifts(rho):
                truth = np.sum(encoders.masses(shift) * margins, axis=1)
                assert np.all(proved <= truth + TOLERANCE)
                nearest = min(nearest, float(np.min(truth - proved)))
                pairs += len(truth)
    assert pairs >= 100_000
    assert nearest < 5e-3


def test_the_search_has_teeth() -> None:
    """The constant of a shift 3% shorter is caught."""
    h, encoders = scalars(), extremal(1000, 9)
    margins = encoders.features[..., 0]
    along = np.cos(PILOT_ANGLE) * margins + np.sin(PILOT_ANGLE) * encoders.features[..., 1]
    here, rho = encoders.masses(np.zeros(1)), 1.3
    caught = False
    for i in range(len(h.alignment)):
        one = h.take(slice(i, i + 1))
        known = np.sum(
            one.values(margins.reshape(1, -1), along.reshape(1, -1)).reshape(margins.shape) * here, axis=1
        )
        proved = known - float(one.constant(0.97 * rho, 1.0)[0])
        caught |= bool(np.any(proved > np.sum(encoders.masses(np.array([rho])) * margins, axis=1) + 1e-6))
    assert caught


def too_often(misses: int, repetitions: int, rate: float) -> bool:
    return float(binom.sf(misses - 1, repetitions, rate)) < 1e-8


# margin of the noise, falling (the worst order), and its mean under a shift rho
LAWS = {
    "normal": (lambda z: 0.4 - 0.15 * z, lambda rho: 0.4 - 0.15 * rho),
    "rare": (
        lambda z: np.where(z > ndtri(0.97), -1.0, 0.5 - 0.1 * z),
        lambda rho: (
            -ndtr(rho - ndtri(0.97))
            + (0.5 - 0.1 * rho) * ndtr(ndtri(0.97) - rho)
            + 0.1 * np.exp(-((ndtri(0.97) - rho) ** 2) / 2) / np.sqrt(2 * np.pi)
        ),
    ),
    "votes": (lambda z: np.where(z > 1.0, -0.6, 0.8), lambda rho: -0.6 + 1.4 * ndtr(1.0 - rho)),
}


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("rho", [0.5, 1.2])
def test_bounds_from_draws(name: str, rho: float) -> None:
    """Scalar from 40 pilot draws, bound from 200 fresh ones, under the worst shift; at most alpha miss.

    Betting looks at every draw, so this is also what a hostile observer who stops at any time could claim.
    """
    law, mean = LAWS[name]
    repetitions, alpha = 1500, 0.05
    generator = np.random.default_rng(3)
    pilot, fresh = (np.clip(law(generator.normal(size=(repetitions, n))), -1, 1) for n in (40, 200))
    h = choose_scalar(pilot, rho, 1.0, draws=200, alpha=alpha)
    bound = h.bound(h.constant(rho, 1.0), lower_bound(h.scores(fresh, 0 * fresh), alpha))
    truth = float(mean(rho))
    assert not too_often(int(np.sum(bound > truth)), repetitions, alpha)
    assert np.mean(bound) > truth - 0.4  # and says something


def test_radii_from_a_grid_of_tests() -> None:
    """A radius from tests at a grid, each at alpha, exceeds the true one at most at rate alpha, and beats T4."""
    repetitions, alpha, true = 400, 0.05, 0.4 / 0.15
    generator = np.random.default_rng(4)
    law, _ = LAWS["normal"]
    pilot, fresh = (np.clip(law(generator.normal(size=(repetitions, n))), -1, 1) for n in (60, 300))
    grid = np.array([0.5, 1.0, 1.4, 1.8, 2.1, 2.4, 2.7, 3.0])  # 2.667 is true
    held = np.zeros((repetitions, grid.size), dtype=bool)
    for i, rho in enumerate(grid):
        h = choose_scalar(pilot, rho, 1.0, draws=300, alpha=alpha, level=0.0)
        held[:, i] = lower_bound(h.scores(fresh, 0 * fresh), alpha) >= h.threshold(h.constant(rho, 1.0))
    found = nested_radius(held, grid)
    assert not too_often(int(np.sum(found > true)), repetitions, alpha)
    t4 = margin_radius(2 * lower_bound((1 + fresh) / 2, alpha) - 1, 0.0, 0.0, 1.0)
    assert np.nanmean(found) > 1.5 * np.nanmean(t4)
