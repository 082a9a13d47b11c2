"""T4's mixture as a scalar that numbers name: against encoders whose means are exact sums, and against T4 itself."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from smoothcert.certificates import (
    distribution_bound,
    dual_bound,
    margin_radius,
    straight_bound,
    straight_law,
    straight_score,
)

SHIFTS = (0.1, 0.6, 1.4)


def encoders(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(count,) <v, w>, and means (count, 1 + shifts both ways, 2) of <u, -w> and <u, v>: the first one not attacked.

    Encoders are constant on seven intervals of a line, with features that stay in part together, in part not.
    """
    generator = np.random.default_rng(4)
    edges = np.sort(generator.normal(0, 1.2, (count, 6)), axis=1)
    spread = generator.choice([0.1, 0.5, 3.0], (count, 1, 1))
    u = np.array([1.0, 0.6, 0.0]) + spread * generator.normal(size=(count, 7, 3))
    u /= np.linalg.norm(u, axis=2, keepdims=True)
    # the worst order for the margin in one half of them
    order = np.argsort(-u[..., 0], axis=1)
    u[::2] = np.take_along_axis(u, order[..., None], axis=1)[::2]
    ends = np.concatenate([np.full((count, 1), -np.inf), edges, np.full((count, 1), np.inf)], axis=1)
    shifts = np.array([0.0, *SHIFTS, *(-s for s in SHIFTS)])
    masses = np.diff(ndtr(ends[:, None] - shifts[:, None]), axis=2)
    angle = generator.uniform(-0.4, 1.2, count)
    v = np.stack([np.cos(angle), np.sin(angle), np.zeros(count)], axis=1)
    margins, along = u[..., 0], np.einsum("epd,ed->ep", u, v)
    means = np.stack([np.einsum("esp,ep->es", masses, each) for each in (margins, along)], axis=2)
    return -np.cos(angle), means, generator.exponential(size=(count, 2))


ALIGNMENT, MEANS, MULTIPLIERS = encoders(1000)
MARGIN, NORM = MEANS[:, 0].T


@pytest.mark.parametrize("i", range(len(SHIFTS)))
def test_whatever_the_multipliers_no_encoder_falls_below_the_bound(i):
    worst = np.minimum(MEANS[:, 1 + i, 0], MEANS[:, 1 + len(SHIFTS) + i, 0])
    any_law = np.concatenate(
        [np.log(MULTIPLIERS), ALIGNMENT[:, None], np.full((len(ALIGNMENT), 1), -1.0)], axis=1
    )
    for law in (straight_law(MARGIN, NORM, ALIGNMENT, SHIFTS[i], 1.0), any_law):
        bound = straight_bound(straight_score(law, MARGIN, NORM), law, SHIFTS[i], 1.0)
        assert np.all(bound <= worst + 1e-10)
    best = straight_law(MARGIN, NORM, ALIGNMENT, SHIFTS[i], 1.0)
    closest = worst - straight_bound(straight_score(best, MARGIN, NORM), best, SHIFTS[i], 1.0)
    assert closest.min() < 0.1  # and the test would see a bound that is a little too high


def test_it_proves_what_t4_does():
    rows, sigma = slice(0, 60), 0.5
    gram = np.array(
        [[[1, -1, g], [-1, 1, -g], [g, -g, 1.0]] for g in ALIGNMENT[rows]],
    )
    for rho in SHIFTS:
        law = straight_law(MARGIN[rows], NORM[rows], ALIGNMENT[rows], rho * sigma, sigma)
        bound = straight_bound(straight_score(law, MARGIN[rows], NORM[rows]), law, rho * sigma, sigma)
        t4 = -dual_bound(gram, np.stack([MARGIN[rows], NORM[rows]], axis=1), rho, 1.0)
        assert bound == pytest.approx(t4, abs=1e-6)


def test_of_a_rival_without_a_margin_the_pilot_direction_speaks_alone():
    away = np.linspace(-0.95, -0.6, 6)
    norm = np.full(6, 0.9)
    radius = margin_radius(None, norm, away, 0.5)
    assert np.all(radius > 0.1)
    for part, sign in ((0.99, 1), (1.01, -1)):
        law = straight_law(None, norm, away, part * radius, 0.5)
        assert np.all(law[:, 0] == -10.0)
        # whatever stands for the margin, it has no part
        score = straight_score(law, -np.ones(6), norm)
        assert np.array_equal(score, straight_score(law, np.ones(6), norm))
        assert np.all(sign * straight_bound(score, law, part * radius, 0.5) > 0.0)


def test_laws_of_both_kinds_stand_side_by_side():
    bent = np.array([0.4, 0.1, 2.5, 0.5, 0.9])
    straight = np.append(straight_law([0.4], [0.9], [-0.5], 0.3, 0.5)[0], 0.9)
    laws = np.stack([bent, straight, bent])
    together = distribution_bound([0.8, 0.8, 0.9], laws, 0.3, 0.5)
    alone = [
        float(distribution_bound(s, law, 0.3, 0.5)) for s, law in zip((0.8, 0.8, 0.9), laws, strict=True)
    ]
    assert together == pytest.approx(alone, abs=1e-12)
    assert together[1] == pytest.approx(straight_bound([0.8], straight[None], 0.3, 0.5)[0], abs=1e-12)
    assert np.isnan(distribution_bound(0.9, straight, 50.0, 0.5))
